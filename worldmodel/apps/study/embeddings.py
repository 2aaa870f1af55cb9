"""What lies in the embeddings themselves: true states, straight paths, rank, a map."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sigreg import effective_rank, report
from worldmodel import checkpoint
from worldmodel.apps.runs import Run
from worldmodel.apps.study.material import embed
from worldmodel.apps.study.parts import Study, UnavailableError, both_sides
from worldmodel.apps.train.state import read_state
from worldmodel.model import WorldModel
from worldmodel.study import (
    jackknife,
    mean_estimate,
    principal_components,
    probe_guesses,
    score_guesses,
    straightness,
)

__all__ = ["latent_map", "probes", "spread", "straight"]


def probes(study: Study) -> dict[str, Any]:
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
    train_y, test_y = (s.states.flatten(0, 1).to(train_z) for s in (fit, test))  # type: ignore[union-attr]
    guesses = probe_guesses(train_z, train_y, test_z, seed=study.seed)
    episode = torch.arange(len(test.z)).repeat_interleave(test.z.shape[1])
    scale = train_y.std(0)
    scored = {
        kind: score_guesses(guess.cpu(), test_y.cpu(), episode, scale.cpu(), seed=study.seed)
        for kind, guess in guesses._asdict().items()
    }
    quantities = []
    for i, name in enumerate(study.material.names):
        still = float(test_y[:, i].std()) < 1e-6 * (1 + float(test_y[:, i].abs().mean()))
        quantities.append(
            {"name": name, "varies": not still}
            | {kind: scores[i]._asdict() for kind, scores in scored.items()}
        )
    return {
        "quantities": quantities,
        "train_episodes": len(fit.z),
        "test_episodes": len(test.z),
        "coordinates": train_z.shape[1],
        "unit": "standard deviation of the quantity over the probes' training frames",
    }


def straight(study: Study) -> dict[str, Any]:
    """Do latent paths become straighter with training?"""
    test = study.material.test
    if test.z.shape[1] < 3:
        raise UnavailableError(f"a path of {test.z.shape[1]} frames has no two moves")
    now = mean_estimate(straightness(test.z), seed=study.seed)
    out: dict[str, Any] = {"trained": now}
    if now.n == 0:
        raise UnavailableError("the embeddings do not move, so their paths have no direction")
    if test.states is not None:
        out["true_states"] = mean_estimate(straightness(test.states), seed=study.seed)
    fresh = _untrained(study)
    if fresh is not None:
        z = embed(fresh, test.frames)
        out["untrained"] = mean_estimate(straightness(z), seed=study.seed)
    course = []
    for step, then in _checkpoints(study.run):
        values = straightness(embed(then, test.frames))
        course.append({"step": step, "straightness": mean_estimate(values, seed=study.seed)})
    return out | {"checkpoints": course}


def spread(study: Study) -> dict[str, Any]:
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
    fields = (
        "num_samples", "dim", "num_batches", "statistic", "floor", "excess", "collapse", "p_value",
        "gaussian_rank", "scale", "mean_error", "covariance_error", "worst_statistic",
        "worst_p_value",
    )  # fmt: skip
    values = torch.linalg.eigvalsh(torch.cov(centred.flatten(0, 1).T).reshape(K, K)).flip(0)
    share = values.clamp_min(0) / values.clamp_min(0).sum().clamp_min(1e-300)
    return {
        "effective_rank": jackknife(sums, rank),
        "embedding_dims": test.z.shape[-1],
        "spectrum": share[:64].tolist(),
        "report": {name: getattr(said, name) for name in fields},
        "verdict": said.verdict,
    }


def latent_map(study: Study) -> dict[str, Any]:
    """The two directions of largest variance, coloured by what is true."""
    test = study.material.test
    z = study.lens(test.z).flatten(0, 1).cpu()
    every = max(len(z) // 1200, 1)
    coordinates, share = principal_components(z)
    states = None if test.states is None else test.states.flatten(0, 1)[::every]
    time = torch.arange(test.z.shape[1]).repeat(len(test.z))[::every]
    if study.variance <= 0:
        raise UnavailableError("all embeddings are the same point")
    return {
        "share": share.tolist(),
        "points": coordinates[::every].tolist(),
        "states": None if states is None else states[:, :2].tolist(),
        "time": time.tolist(),
        "coloured_by": "time" if states is None else " and ".join(study.material.names[:2]),
    }


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
                # Training goes on from the one before a damaged state, and so does this.
                continue
            then = copy.deepcopy(run.world_model)
            prefix = "model."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            then.load_state_dict(own)
        yield int(numbers[path][-1]), then
