"""The parts of a study, each a function of the run and its material to plain JSON values.

A part that cannot be measured raises `UnavailableError` with the reason; the others go on.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sigreg import effective_rank, report
from worldmodel import checkpoint
from worldmodel.apps.runs import Run
from worldmodel.apps.study_material import Material, Sequences, embed
from worldmodel.model import WorldModel
from worldmodel.study import (
    Estimate,
    PairedTest,
    background,
    bootstrap,
    fit_decoder,
    jackknife,
    mean_estimate,
    open_loop,
    paired_test,
    principal_components,
    probe_guesses,
    recolour,
    score_guesses,
    splice,
    straightness,
    surprise,
)
from worldmodel.worlds import TwoRoom

__all__ = ["PARTS", "Study", "UnavailableError", "lens_of", "plain"]

_WIDE = 256  # embeddings wider than this are studied through their principal components


class UnavailableError(ValueError):
    """A part of the study has nothing to measure; the message says why."""


class Lens(NamedTuple):
    """Embeddings as the study's own fits see them.

    Attributes:
        mean: [D].
        basis: [D, K], the leading directions of a wide embedding; None leaves it as it is.
    """

    mean: Tensor
    basis: Tensor | None

    def __call__(self, z: Tensor) -> Tensor:
        """[..., D] -> [..., K]."""
        return z if self.basis is None else (z - self.mean) @ self.basis


class Study(NamedTuple):
    """What every part is given.

    Attributes:
        run: Run.
        material: Material.
        lens: Lens.
        variance: of a coordinate of the test embeddings, on average; the unit of latent errors.
        seed: of every fit and every interval.
        steps: of the decoder's training.
    """

    run: Run
    material: Material
    lens: Lens
    variance: float
    seed: int
    steps: int


def lens_of(sequences: Sequences) -> Lens:
    """Directions of largest variance, where there are more coordinates than can be fitted."""
    z = sequences.z.flatten(0, 1)
    mean = z.mean(0)
    keep = min(_WIDE, max(len(z) // 4, 2))
    if z.shape[1] <= _WIDE:
        return Lens(mean, None)
    # Rows are fewer than coordinates: the small side's eigenvectors give the large side's.
    x = (z - mean).double()
    values, vectors = torch.linalg.eigh(x @ x.T)
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    basis = (x.T @ vectors) / values.clamp_min(1e-12).sqrt()
    return Lens(mean, basis.to(z.dtype))


def plain(value: Any) -> Any:
    """What JSON can hold: records to dicts, NaN to null, six significant figures."""
    if isinstance(value, (Estimate, PairedTest)):
        return {k: plain(v) for k, v in value._asdict().items()}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def probes(study: Study) -> dict[str, Any]:
    """Is the true state in the embedding, and is it easy to read?"""
    fit, test = _both(study, "probes need an episode to learn from and another to be tried on")
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


def foresight(study: Study) -> dict[str, Any]:
    """How far ahead can the model see without looking again?"""
    test = study.material.test
    T, history = test.z.shape[1], study.run.model.predictor.history
    known = min(history, T - 2)
    if known < 1:
        raise UnavailableError(f"episodes of {T} frames leave no future to predict")
    if study.variance <= 0:
        raise UnavailableError("all embeddings are the same, so any guess is perfect")
    others = study.material.fit or test
    errors = open_loop(
        study.run.model, test.z, test.actions, known=known, mean=others.z.flatten(0, 1).mean(0)
    )
    steps = errors.model.shape[1]
    curves = {
        name: [mean_estimate(e[:, h] / study.variance, seed=study.seed) for h in range(steps)]
        for name, e in errors._asdict().items()
    }
    worse = [h + 1 for h in range(steps) if curves["model"][h].value >= curves["copy"][h].value]
    return {
        "known_frames": known,
        "horizons": list(range(1, steps + 1)),
        "raw_steps_per_horizon": study.run.frameskip,
        **curves,
        "first_horizon_no_better_than_copying": worse[0] if worse else None,
        "unit": "variance of the held-out embeddings (1 is what their mean scores)",
    }


def violations(study: Study) -> dict[str, Any]:
    """Is the model surprised by the impossible, and more by a jump than by a colour?"""
    test, model = study.material.test, study.run.model
    E, T = test.z.shape[:2]
    at = T // 2
    if T < 3:
        raise UnavailableError(f"episodes of {T} frames have no middle")
    if study.variance <= 0:
        raise UnavailableError("all embeddings are the same: nothing can be a surprise")
    if E < 2:
        raise UnavailableError("a paired test needs at least two episodes, got one")
    still = background(test.frames[:, :: max(T // 4, 1)])
    conditions = {
        "undisturbed": (test.frames, test.actions),
        "recolour": (recolour(test.frames, still, at), test.actions),
        "teleport": _teleported(study, at),
    }
    curves = {}
    for name, (frames, actions) in conditions.items():
        z = test.z if name == "undisturbed" else embed(model, frames)
        found = surprise(model, z, actions, history=model.predictor.history)
        curves[name] = (found / study.variance).cpu()
    now = {name: values[:, at - 1] for name, values in curves.items()}
    changed = {
        name: mean_estimate(_changed(conditions[name][0][:, at], test.frames[:, at]))
        for name in ("recolour", "teleport")
    }
    if changed["recolour"].value == 0:
        raise UnavailableError(
            "nothing stands out from the background, so nothing could be recoloured"
        )
    return {
        "at_frame": at,
        "frames": list(range(1, T)),
        "surprise": {
            name: [mean_estimate(values[:, t], seed=study.seed) for t in range(T - 1)]
            for name, values in curves.items()
        },
        "tests": {
            f"{a} against {b}": paired_test(now[a], now[b], seed=study.seed)
            for a, b in (
                ("teleport", "undisturbed"),
                ("recolour", "undisturbed"),
                ("teleport", "recolour"),
            )
        },
        "pixels_changed": changed,
        "teleport_is": (
            "the agent is somewhere else, at least a quarter of the world away, and goes on from "
            "there under the same actions"
            if study.material.world
            else "the episode goes on as another one does"
        ),
        "unit": "variance of the held-out embeddings",
        "pictures": {
            name: frames[0, at - 1 : at + 1].permute(0, 2, 3, 1).numpy()
            for name, (frames, _) in conditions.items()
        },
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
    for step, folder in _checkpoints(study.run):
        then = checkpoint.load(folder, next(study.run.model.parameters()).device)
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

    # Episodes side by side, one batch a time step, as the regularizer saw them.
    said = report(z.transpose(0, 1), num_proj=256, seed=study.seed)
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


def pictures(study: Study) -> dict[str, Any]:
    """What does an embedding know of its frame, and a rollout of the future?"""
    fit, test = _both(study, "a decoder needs an episode to learn from and another to paint")
    shrunk, small = _small(fit.frames), _small(test.frames)
    decoder = fit_decoder(
        study.lens(fit.z).flatten(0, 1).cpu(), shrunk.flatten(0, 1), steps=study.steps,
        seed=study.seed,
    )  # fmt: skip
    known = min(study.run.model.predictor.history, test.z.shape[1] - 1)
    with torch.no_grad():
        dreamt = study.run.model.rollout(test.z[:, :known], test.actions)
        painted = _paint(decoder, study.lens(test.z).cpu())
        future = _paint(decoder, study.lens(dreamt).cpu())
    truth = small.float() / 255
    error = (painted - truth).square().flatten(1).mean(1)
    blind = (decoder.mean - truth).square().flatten(1).mean(1)
    sums = torch.stack([error, blind, torch.ones_like(error)], dim=1)
    columns = _columns(known, test.z.shape[1])
    rows = [
        {
            "truth": _array(truth[e, columns]),
            "seen": _array(painted[e, columns]),
            "dreamt": [
                None if t < known else _array(future[e, t - known : t - known + 1])[0]
                for t in columns
            ],
        }
        for e in range(min(3, len(test.z)))
    ]
    return {
        "explained_share": bootstrap(sums, lambda s: 1 - s[..., 0] / s[..., 1], seed=study.seed),
        "pixel_mse": bootstrap(sums, lambda s: s[..., 0] / s[..., 2], seed=study.seed),
        "mean_picture_mse": bootstrap(sums, lambda s: s[..., 1] / s[..., 2], seed=study.seed),
        "side": small.shape[-1],
        "known_frames": known,
        "columns": [t - known + 1 for t in columns],
        "steps": study.steps,
        "pictures": rows,
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


PARTS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "probes": probes,
    "foresight": foresight,
    "violations": violations,
    "straightness": straight,
    "spread": spread,
    "pictures": pictures,
    "map": latent_map,
}


def _both(study: Study, why: str) -> tuple[Sequences, Sequences]:
    if study.material.fit is None:
        raise UnavailableError(f"{why}, got one in all")
    return study.material.fit, study.material.test


def _teleported(study: Study, at: int) -> tuple[Tensor, Tensor]:
    """Frames and actions of episodes whose agent is elsewhere from frame `at` on."""
    test, world = study.material.test, study.material.world
    if world is None or test.states is None:
        return splice(test.frames, at), splice(test.actions, at)
    here = test.states[:, at].numpy()
    there = _far_from(world, here, study.seed)
    k, frames, now = study.run.frameskip, test.frames.clone(), there
    for t in range(at, test.z.shape[1]):
        frames[:, t] = torch.from_numpy(world.render(now))
        for action in test.raw[:, t * k : (t + 1) * k].unbind(1):
            now = world.step(now, action.numpy())
    return frames, test.actions


def _far_from(world: TwoRoom, states: Any, seed: int) -> Any:
    """Places at least a quarter of the world away, one for each state [N, 2]."""
    rng, out = np.random.default_rng(seed), states.copy()
    near = np.ones(len(states), bool)
    while near.any():
        out[near] = world.sample_states(rng, int(near.sum()))
        near = world.distance(out, states) < world.size / 4
    return out


def _changed(first: Tensor, second: Tensor) -> Tensor:
    """Share of each frame's pixels that differ visibly: [E]."""
    differs = (first.short() - second.short()).abs().amax(1) > 24
    return differs.flatten(1).float().mean(1)


def _untrained(study: Study) -> WorldModel | None:
    """The same architecture with fresh weights; None where the encoder is a frozen, given one."""
    model = study.run.model
    if not any(p.requires_grad for p in model.encoder.parameters()):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(study.run.settings.get("seed", 0)))
        fresh = copy.deepcopy(model)
        fresh.encoder = type(model.encoder)(**model.encoder.config)
    return fresh.eval().to(next(model.parameters()).device)


def _checkpoints(run: Run) -> list[tuple[int, Any]]:
    """Models saved on the way, by the last number in their folder's name."""
    found = []
    for config in run.folder.glob(f"*/{checkpoint.CONFIG}"):
        number = re.findall(r"\d+", config.parent.name)
        if number and (config.parent / checkpoint.WEIGHTS).is_file():
            found.append((int(number[-1]), config.parent))
    return sorted(found)


def _small(frames: Tensor) -> Tensor:
    """Frames of 64 pixels a side at most, a multiple of 16, each an average over its area."""
    side = min(64, max(frames.shape[-1] // 16, 1) * 16)
    if frames.shape[-2:] == (side, side):
        return frames
    flat = frames.flatten(0, 1)
    parts = [
        torch.nn.functional.interpolate(p.float(), (side, side), mode="area").round().byte()
        for p in flat.split(256)
    ]
    out: Tensor = torch.cat(parts).unflatten(0, frames.shape[:2])
    return out


def _paint(decoder: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """[E, T, K] -> [E, T, 3, S, S]."""
    parts = [decoder(part) for part in z.flatten(0, 1).split(256)]
    out: Tensor = torch.cat(parts).unflatten(0, z.shape[:2])
    return out


def _columns(known: int, frames: int) -> list[int]:
    """Frames to show: the last that was known, and up to seven after it, evenly."""
    ahead = torch.linspace(known, frames - 1, min(6, frames - known)).round().int().tolist()
    return [known - 1, *ahead]


def _array(pictures_: Tensor) -> Any:
    """[n, 3, S, S] in 0…1 -> uint8 [n, S, S, 3]."""
    return (pictures_ * 255).round().byte().permute(0, 2, 3, 1).numpy()
