"""What the model expects: open-loop errors, surprise at the impossible, decoded rollouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from worldmodel.apps.study.parts import Study, UnavailableError, both_sides
from worldmodel.apps.study.records import Foresight, Pictures, Strip, Violations
from worldmodel.study import (
    background,
    bootstrap,
    embed,
    fit_decoder,
    mean_estimate,
    open_loop,
    paired_test,
    recolour,
    splice,
    surprise,
)
from worldmodel.worlds import TwoRoom

__all__ = ["foresight", "pictures", "violations"]

Floats = NDArray[np.float32]


def foresight(study: Study) -> Foresight:
    """How far ahead can the model see without looking again?"""
    test, model = study.material.test, study.run.world_model
    known = min(model.predictor.history, test.z.shape[1] - 2)
    if known < 1:
        raise UnavailableError(f"episodes of {test.z.shape[1]} frames leave no future to predict")
    if study.variance <= 0:
        raise UnavailableError("all embeddings are the same, so any guess is perfect")
    mean = (study.material.fit or test).z.flatten(0, 1).mean(0)
    errors = open_loop(model, test.z, test.actions, known=known, mean=mean)
    of_model, of_copy, of_mean = (
        [mean_estimate(e / study.variance, seed=study.seed) for e in curve.unbind(1)]
        for curve in errors
    )
    horizons = list(range(1, len(of_model) + 1))
    worse = [h for h in horizons if of_model[h - 1].value >= of_copy[h - 1].value]
    return Foresight(
        known_frames=known,
        horizons=horizons,
        raw_steps_per_horizon=study.run.frameskip,
        model=of_model,
        copy=of_copy,
        mean=of_mean,
        first_horizon_no_better_than_copying=worse[0] if worse else None,
        unit="variance of the held-out embeddings (1 is what their mean scores)",
    )


def violations(study: Study) -> Violations:
    """Is the model surprised by the impossible, and more by a jump than by a colour?"""
    test, model = study.material.test, study.run.world_model
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
    pairs = (("teleport", "undisturbed"), ("recolour", "undisturbed"), ("teleport", "recolour"))
    return Violations(
        at_frame=at,
        frames=list(range(1, T)),
        surprise={
            name: [mean_estimate(s, seed=study.seed) for s in values.unbind(1)]
            for name, values in curves.items()
        },
        tests={f"{a} against {b}": paired_test(now[a], now[b], seed=study.seed) for a, b in pairs},
        pixels_changed=changed,
        teleport_is=(
            "the agent is somewhere else, at least a quarter of the world away, and continues from "
            "there under the same actions"
            if study.material.world
            else "the episode continues as another one does"
        ),
        unit="variance of the held-out embeddings",
        pictures={
            name: frames[0, at - 1 : at + 1].permute(0, 2, 3, 1).numpy()
            for name, (frames, _) in conditions.items()
        },
    )


def pictures(study: Study) -> Pictures:
    """What does an embedding know of its frame, and a rollout of the future?"""
    fit, test = both_sides(study, "a decoder needs an episode to learn from and another to paint")
    shrunk, small = _small(fit.frames), _small(test.frames)
    decoder = fit_decoder(
        study.lens(fit.z).flatten(0, 1).cpu(), shrunk.flatten(0, 1), steps=study.steps,
        seed=study.seed,
    )  # fmt: skip
    known = min(study.run.world_model.predictor.history, test.z.shape[1] - 1)
    with torch.no_grad():
        dreamt = study.run.world_model.rollout(test.z[:, :known], test.actions)
        painted = _by_parts(decoder, study.lens(test.z).cpu())
        future = _by_parts(decoder, study.lens(dreamt).cpu())
    truth = small.float() / 255
    error = (painted - truth).square().flatten(1).mean(1)
    blind = (decoder.mean - truth).square().flatten(1).mean(1)
    sums = torch.stack([error, blind, torch.ones_like(error)], dim=1)
    columns = _columns(known, test.z.shape[1])
    strips = [
        Strip(
            truth=_array(truth[e, columns]),
            seen=_array(painted[e, columns]),
            dreamt=[None if t < known else _array(future[e, t - known]) for t in columns],
        )
        for e in range(min(3, len(test.z)))
    ]
    return Pictures(
        explained_share=bootstrap(sums, lambda s: 1 - s[..., 0] / s[..., 1], seed=study.seed),
        pixel_mse=bootstrap(sums, lambda s: s[..., 0] / s[..., 2], seed=study.seed),
        mean_picture_mse=bootstrap(sums, lambda s: s[..., 1] / s[..., 2], seed=study.seed),
        side=small.shape[-1],
        known_frames=known,
        columns=[t - known + 1 for t in columns],
        steps=study.steps,
        pictures=strips,
    )


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


def _far_from(world: TwoRoom, states: Floats, seed: int) -> Floats:
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


def _small(frames: Tensor) -> Tensor:
    """Frames of 64 pixels a side at most, a multiple of 16, each an average over its area."""
    side = min(64, max(frames.shape[-1] // 16, 1) * 16)
    if frames.shape[-2:] == (side, side):
        return frames

    def shrink(part: Tensor) -> Tensor:
        return interpolate(part.float(), (side, side), mode="area").round().byte()

    return _by_parts(shrink, frames)


def _by_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of [N, …] applied to [E, T, …], a few rows at a time."""
    parts = [function(part) for part in x.flatten(0, 1).split(256)]
    out: Tensor = torch.cat(parts).unflatten(0, x.shape[:2])
    return out


def _columns(known: int, frames: int) -> list[int]:
    """Frames to show: the last that was known, and up to seven after it, evenly."""
    ahead = torch.linspace(known, frames - 1, min(6, frames - known)).round().int().tolist()
    return [known - 1, *ahead]


def _array(pictures_: Tensor) -> NDArray[np.uint8]:
    """[..., 3, S, S] in 0…1 -> uint8 [..., S, S, 3]."""
    pixels: NDArray[np.uint8] = (pictures_ * 255).round().byte().movedim(-3, -1).numpy()
    return pixels
