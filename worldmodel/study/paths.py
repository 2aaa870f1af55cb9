"""Paths in latent space: straightness, prediction errors, and violation of expectation.

Letters: E episodes, T frames, C H W a frame, H steps ahead, D embedding dims, A action dims.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.model import WorldModel
from worldmodel.records import as_seed

__all__ = [
    "ActionRanks", "HorizonErrors", "background", "embed", "open_loop", "rank_actions", "recolour",
    "splice", "straightness", "surprise",
]  # fmt: skip


class HorizonErrors(NamedTuple):
    """Squared distance to the true embedding, mean over D, for every step ahead."""

    model: Tensor  #: [E, H], of the model's rollout under the true actions.
    copy: Tensor  #: [E, H], of the last known embedding, repeated.
    mean: Tensor  #: [E, H], of one constant embedding.


@torch.no_grad()
@checked(frames="any * C H W")
def embed(model: WorldModel, frames: Tensor, *, chunk: int = 256) -> Tensor:
    """Encode frames [..., 3, H, W], `chunk` at a time: [..., D]."""
    device = next(model.parameters()).device
    parts = frames.flatten(0, -4).split(chunk)
    z = torch.cat([model.encode(part[None].to(device))[0] for part in parts])
    return z.unflatten(0, frames.shape[:-3])


@checked(z="E T>=3 D")
def straightness(z: Tensor) -> Tensor:
    """Mean cosine of consecutive velocities along each path z [E, T, D], T ≥ 3.

        S = mean_t cos(v_t, v_{t+1}),   v_t = z_{t+1} − z_t

    1 on a straight line at any speed, about 0 on a random walk, −½ on independent points, −1 on a
    path that goes back and forth. Pairs with a zero velocity, up to rounding, are left out.

    Returns: [E]; NaN for a path without two consecutive moves.
    Raises: ValueError if there are fewer than three points.
    Source: LeWM, arXiv:2603.19312, Equation 9.
    """
    v = z.diff(dim=1)
    speed = torch.linalg.vector_norm(v, dim=-1)
    least = 1e-6 * torch.linalg.vector_norm(z, dim=-1).amax(1, keepdim=True)
    moving = speed > least.clamp_min(torch.finfo(z.dtype).tiny)
    unit = v / torch.where(moving, speed, torch.ones_like(speed)).unsqueeze(-1)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    both = moving[:, 1:] & moving[:, :-1]
    return (cosine * both).sum(1) / both.sum(1)


@torch.no_grad()
@checked(model="any", z="E T>=2 D", actions="E S A")
def surprise(model: WorldModel, z: Tensor, actions: Tensor, *, history: int) -> Tensor:
    """Error of the one-step prediction of every embedding (violation of expectation).

        s_t = ‖predict(z_{≤t}, a_{≤t}) − z_{t+1}‖² / D

    Args:
        model: in evaluation mode; only its `predict` is used.
        z, actions: [E, T, D] and [E, T − 1, A] (further actions are ignored).
        history: most frames given to the model.
    Returns: [E, T − 1]; entry t is the surprise at frame t + 1.
    Raises: ValueError if there are fewer than two frames or too few actions.
    Source: LeWM, arXiv:2603.19312, Section 5 (violation of expectation).
    """
    steps = z.shape[1] - 1
    if actions.shape[1] < steps:
        raise ValueError(f"actions must be [E, {steps}, A] or longer, got {list(actions.shape)}")
    windows = [slice(max(0, t + 1 - history), t + 1) for t in range(steps)]
    expected = [model.predict(z[:, w], actions[:, w])[:, -1] for w in windows]
    return (torch.stack(expected, dim=1) - z[:, 1:]).square().mean(-1)


@torch.no_grad()
@checked(model="any", z="E T D", actions="E S A", mean="D")
def open_loop(
    model: WorldModel, z: Tensor, actions: Tensor, *, known: int, mean: Tensor
) -> HorizonErrors:
    """Errors of a rollout without new observations, beside two guesses that need no model.

    Args:
        model: in evaluation mode; only its `rollout` is used.
        z, actions: [E, known + H, D] and one action fewer (further ones are ignored).
        known: frames given to the model, at least 1.
        mean: [D], the constant guess; take it from other episodes.
    Raises: ValueError if no step is left to predict or there are too few actions.
    """
    steps = z.shape[1] - known
    if steps < 1 or actions.shape[1] < z.shape[1] - 1:
        got = f"actions one fewer, got {list(z.shape)} and {list(actions.shape)}"
        raise ValueError(f"z must be [E, known + H, D], known = {known} >= 1 and H >= 1, {got}")
    predicted = model.rollout(z[:, :known], actions[:, : z.shape[1] - 1])
    guesses = (predicted, z[:, known - 1 : known], mean.expand(1, 1, -1))
    return HorizonErrors(*((guess - z[:, known:]).square().mean(-1) for guess in guesses))


class ActionRanks(NamedTuple):
    """How a model ranks what was done among what was done elsewhere, for every step ahead."""

    rank: Tensor  #: [E, H], share of the others that lead nearer to what came; 0.5 is chance.
    variation: Tensor  #: [E, H], standard deviation of all costs over their mean.


@torch.no_grad()
@checked(model="any", z="E>=2 T D", actions="E S A")
def rank_actions(
    model: WorldModel, z: Tensor, actions: Tensor, *, known: int, others: int = 63, seed: int = 0
) -> ActionRanks:
    """Rank the actions that were done among those of other episodes, as a planner would.

        c_h(a) = ‖ẑ_h(a) − z_h‖²,   rank_h = mean over others a′ of [c_h(a′) < c_h(a)], ties half

    A planner needs this order, and a small validation loss does not promise it.

    Args:
        model: in evaluation mode; only its `rollout` is used.
        z, actions: [E, known + H, D] and one action fewer (further ones are ignored).
        known: frames given to the model.
        others, seed: other action sequences, each of a random other episode at the same time.
    Raises: ValueError if no step is left to predict, or there are too few actions.
    Source: the true action among other ones, LeWAM, arXiv:2610.12818; variation of costs, PRISM,
        arXiv:2606.07974.
    """
    (E, T), steps = z.shape[:2], z.shape[1] - 1
    if known >= T or actions.shape[1] < steps:
        got = f"actions one fewer, got {list(z.shape)} and {list(actions.shape)}"
        raise ValueError(f"z must be [E, known + H, D], known = {known} and H >= 1, {got}")
    generator = torch.Generator("cpu").manual_seed(as_seed(seed))
    away = torch.randint(1, E, (others, E), generator=generator, device="cpu")
    away = torch.cat([torch.zeros_like(away[:1]), away])  # the true ones first
    past, costs = actions[:, : known - 1], list[Tensor]()
    for whose in (away + torch.arange(E, device="cpu")) % E:
        tried = torch.cat([past, actions[whose.to(actions.device), known - 1 : steps]], 1)
        costs.append((model.rollout(z[:, :known], tried) - z[:, known:]).square().sum(-1))
    c = torch.stack(costs)
    rank = (c[1:] < c[0]).double().mean(0) + (c[1:] == c[0]).double().mean(0) / 2
    return ActionRanks(rank, c.std(0) / c.mean(0).clamp_min(torch.finfo(c.dtype).tiny))


@checked(frames="any * C H W")
def background(frames: Tensor) -> Tensor:
    """The common background of frames [..., C, H, W] of a fixed camera, by median: [C, H, W]."""
    return frames.flatten(0, -4).median(dim=0).values


@checked(frames="int E T 3 H W", still="any 3 H W", at="[0, inf)", threshold="[0, inf)")
def recolour(frames: Tensor, still: Tensor, at: int, *, threshold: int = 24) -> Tensor:
    """Change the colour of everything but the background, from frame `at` on.

    Red becomes green, green blue and blue red, in every pixel of frames [E, T, 3, H, W], uint8,
    that differs from `still` [3, H, W] by more than `threshold` in some channel: above sensor noise
    and below the contrast of objects. Nothing moves, so the change violates appearance alone.

    Returns: [E, T, 3, H, W], a copy.
    Raises: ValueError if frames have not three channels or `at` lies outside.
    """
    if at >= frames.shape[1]:
        raise ValueError(f"frames must be [E, T > {at}, 3, H, W], got {list(frames.shape)}")
    later = frames[:, at:]
    differs = (later.short() - still.short()).abs().amax(-3, keepdim=True) > threshold
    out = frames.clone()
    out[:, at:] = torch.where(differs, later.roll(1, dims=-3), later)
    return out


@checked()
def splice(x: Tensor, at: int) -> Tensor:
    """Continue each episode of x [E, T, …] as its neighbour from entry `at` on: a jump.

    Episode e continues as episode e + 1, the last as the first. Splice frames, actions and states.

    Raises: ValueError if there is one episode only, or `at` lies outside.
    """
    if len(x) < 2 or at >= x.shape[1]:
        raise ValueError(f"x must be [E >= 2, T > at, ...] with at = {at} > 0, got {list(x.shape)}")
    return torch.cat([x[:, :at], x.roll(-1, dims=0)[:, at:]], dim=1)
