"""What lies in the embeddings themselves: true states, straight paths, rank, a map."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from sigreg import effective_rank, report
from worldmodel import checkpoint
from worldmodel.apps.runs import Run
from worldmodel.apps.study.material import StudyMaterial
from worldmodel.apps.study.parts import Study, UnavailableError, both_sides
from worldmodel.apps.study.records import (
    Checkpoint,
    LatentMap,
    Probes,
    Quantity,
    Spread,
    Straightness,
)
from worldmodel.apps.train.loop import read_state
from worldmodel.heads import Head, fit_head
from worldmodel.model import WorldModel
from worldmodel.study import (
    Estimate,
    embed,
    jackknife,
    mean_estimate,
    principal_components,
    probe_guesses,
    score_guesses,
    straightness,
)

__all__ = ["latent_map", "linear_probe", "probes", "spread", "straight"]

_POINTS = 800  # of the map, at most


def probes(study: Study) -> Probes:
    """Is the true state in the embedding, and is it easy to read?"""
    fit, test = both_sides(study, "probes need an episode to learn from and another to be tried on")
    if fit.states is None or test.states is None:
        raise UnavailableError(
            "the data hold no states, so there is nothing to compare embeddings with"
        )
    train_z, test_z = (study.lens(s.z).flatten(0, 1) for s in (fit, test))
    if len(train_z) < train_z.shape[1] + 1:
        raise UnavailableError(
            f"a linear probe of {train_z.shape[1]} coordinates needs more than as many frames, "
            f"got {len(train_z)}"
        )
    train_y, test_y = (s.flatten(0, 1).to(train_z) for s in (fit.states, test.states))
    guesses = probe_guesses(train_z, train_y, test_z, seed=study.seed)
    episode = torch.arange(len(test.z)).repeat_interleave(test.z.shape[1])
    scale = train_y.std(0).cpu()
    scored = [
        score_guesses(guess.cpu(), test_y.cpu(), episode, scale, seed=study.seed)
        for guess in guesses
    ]
    still = test_y.std(0) < 1e-6 * (1 + test_y.abs().mean(0))
    return Probes(
        quantities=[
            Quantity(name, not bool(still[i]), *(scores[i] for scores in scored))
            for i, name in enumerate(study.material.names)
        ],
        train_episodes=len(fit.z),
        test_episodes=len(test.z),
        coordinates=train_z.shape[1],
        unit="standard deviation of the quantity over the probes' training frames",
    )


def linear_probe(material: StudyMaterial) -> Head | None:
    """States read off embeddings, for `worldmodel.goals.state`; None where none can be fitted."""
    if material.fit is None or material.fit.states is None:
        return None
    z, y = (t.flatten(0, 1) for t in (material.fit.z, material.fit.states))
    known = y.isfinite().all(-1)
    return fit_head(z[known], y[known].to(z)) if int(known.sum()) > z.shape[1] else None


def straight(study: Study) -> Straightness:
    """Do latent paths become straighter with training?"""
    test = study.material.test
    if test.z.shape[1] < 3:
        raise UnavailableError(f"a path of {test.z.shape[1]} frames has no two moves")

    def of(paths: Tensor) -> Estimate:
        return mean_estimate(straightness(paths), seed=study.seed)

    now = of(test.z)
    if now.n == 0:
        raise UnavailableError("the embeddings do not move, so their paths have no direction")
    fresh = _untrained(study)
    return Straightness(
        trained=now,
        true_states=None if test.states is None else of(test.states),
        untrained=None if fresh is None else of(embed(fresh, test.frames)),
        checkpoints=[
            Checkpoint(step, of(embed(then, test.frames))) for step, then in _checkpoints(study.run)
        ],
    )


def spread(study: Study) -> Spread:
    """How many directions does the embedding use, and how close is it to a Gaussian?"""
    test = study.material.test
    z = study.lens(test.z)
    E, T, K = z.shape
    if E < 2:
        raise UnavailableError("a covariance needs at least two episodes, got one")
    centred = (z - z.flatten(0, 1).mean(0)).double()
    if study.variance <= 0:
        # What is left of one point is rounding, which has a rank of its own.
        centred = torch.zeros_like(centred)
    sums = torch.cat(
        [
            torch.einsum("etk,etl->ekl", centred, centred).flatten(1),
            centred.sum(1),
            torch.full((E, 1), float(T), dtype=torch.float64, device=z.device),
        ],
        dim=1,
    )

    def rank(total: Tensor) -> Tensor:
        square, mean, n = total.split([K * K, K, 1], dim=-1)
        mean = mean / n
        covariance = (square / n).unflatten(-1, (K, K)) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return effective_rank(covariance)

    state_rank = None
    if test.states is not None:
        y = test.states.flatten(0, 1).double()
        y = (y - y.mean(0)) / y.std(0).clamp_min(1e-9)
        state_rank = float(effective_rank(y.T @ y))
    # Episodes side by side, one batch a time step, as the regularizer saw them.
    said = report(z.transpose(0, 1), num_proj=256, seed=study.seed, state_rank=state_rank)
    values = torch.linalg.eigvalsh(torch.cov(centred.flatten(0, 1).T).reshape(K, K)).flip(0)
    share = values.clamp_min(0) / values.clamp_min(0).sum().clamp_min(1e-300)
    return Spread(
        effective_rank=jackknife(sums, rank),
        embedding_dims=test.z.shape[-1],
        spectrum=share[:64].tolist(),
        report={k: v for k, v in vars(said).items() if isinstance(v, (int, float))},
        verdict=said.verdict,
    )


def latent_map(study: Study) -> LatentMap:
    """The two directions of largest variance, coloured by what is true."""
    test, world = study.material.test, study.material.world
    if study.variance <= 0:
        raise UnavailableError("all embeddings are the same point")
    z = study.lens(test.z).flatten(0, 1).cpu()
    every = -(-len(z) // _POINTS)
    coordinates, share = principal_components(z)
    states = None if test.states is None else test.states.flatten(0, 1)[::every, :2]
    return LatentMap(
        share=share.tolist(),
        coloured_by="time" if states is None else " and ".join(study.material.names[:2]),
        points=coordinates[::every].double().numpy(),
        states=None if states is None else states.double().cpu().numpy(),
        time=torch.arange(test.z.shape[1]).repeat(len(test.z))[::every].double().numpy(),
        in_picture=world is not None,
    )


def _untrained(study: Study) -> WorldModel | None:
    """The same architecture with fresh weights; None where the encoder is a frozen, given one."""
    model = study.run.world_model
    if not any(p.requires_grad for p in model.encoder.parameters()):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(study.run.settings.get("seed", 0)))
        fresh = copy.deepcopy(model)
        fresh.encoder = type(model.encoder)(**model.encoder.config)
    return fresh.eval().to(next(model.parameters()).device)


def _checkpoints(run: Run) -> Iterator[tuple[int, WorldModel]]:
    """Models of the way here, oldest first: numbered folders of the run, and training states."""
    found = [path.parent for path in run.folder.glob(f"*/{checkpoint.CONFIG}")]
    found += run.folder.glob("checkpoints/step-*.safetensors")
    numbers = {path: re.findall(r"\d+", path.stem) for path in found}
    device = next(run.world_model.parameters()).device
    for path in sorted((p for p in found if numbers[p]), key=lambda p: int(numbers[p][-1])):
        if path.is_dir():
            then = checkpoint.load(path, device)
        else:
            try:
                state = read_state(path)[0]
            except ValueError:
                # Training continues from the one before a damaged state, and so does this.
                continue
            then = copy.deepcopy(run.world_model)
            prefix = "model."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            then.load_state_dict(own)
        yield int(numbers[path][-1]), then
