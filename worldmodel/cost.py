"""From a model and two pictures to a cost of plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from worldmodel.model import WorldModel
from worldmodel.rollout import PlanRollout

__all__ = ["goal_cost"]


def goal_cost(
    model: WorldModel,
    frames: Tensor,
    goal: Tensor,
    *,
    past_actions: Tensor | None = None,
    steps: Literal["last", "mean", "nearest"] = "last",
) -> Callable[[Tensor], Tensor]:
    """Cost of plans: how far from the goal's embedding the model expects to end.

        cost(a) = ‖ẑ_H(a) − z_goal‖²                 steps = "last"
        cost(a) = mean_h ‖ẑ_h(a) − z_goal‖²          steps = "mean"
        cost(a) = min_h ‖ẑ_h(a) − z_goal‖² + mean/20 steps = "nearest"

    Args:
        model: in eval mode; its dropout and batch statistics would make a cost noisy.
        frames: [B, T, C, H, W], what has been seen, the newest last.
        goal: [B, C, H, W], what should be seen.
        past_actions: [B, T − 1, A], what was done between the frames; needed where T > 1.
        steps: which predictions are compared with the goal. "last" is the published cost; "mean"
            also rewards arriving early, and shuns detours; "nearest" asks to come close at any
            time, with just enough of the mean to come soon.
    Returns: a function of actions [B, S, H, A], in the units the model was trained on, to costs
        [B, S].
    Raises: ValueError if the model is in training mode or shapes disagree.
    Source: LeWM, arXiv:2603.19312, Section 3 (planning); sum over D as in the released code.
    """
    if model.training:
        raise ValueError("model must be in eval mode, call model.eval() first")
    if frames.dim() != 5 or goal.shape != frames[:, 0].shape:
        raise ValueError(
            "frames and goal must be [B, T, C, H, W] and [B, C, H, W], "
            f"got {list(frames.shape)} and {list(goal.shape)}"
        )
    B, T = frames.shape[:2]
    A = model.action_encoder.action_dim
    if past_actions is None:
        past_actions = frames.new_zeros((B, 0, A), dtype=torch.float32)
    if past_actions.shape != (B, T - 1, A):
        raise ValueError(
            f"past_actions must be [B, T - 1, A] = {[B, T - 1, A]}, got {list(past_actions.shape)}"
        )
    if steps not in ("last", "mean", "nearest"):
        raise ValueError(f'steps must be "last", "mean" or "nearest", got {steps!r}')
    with torch.no_grad():
        z = model.encode(frames)
        z_goal = model.encode(goal.unsqueeze(1))
        past = model.action_encoder(past_actions)
    rollout = PlanRollout(model.predictor)

    def cost(actions: Tensor) -> Tensor:
        if actions.dim() != 4 or actions.shape[0] != B or actions.shape[3] != A:
            raise ValueError(
                f"actions must be [B, S, H, A] = [{B}, S, H, {A}], got {list(actions.shape)}"
            )
        plans = model.action_encoder(actions)
        predicted = rollout(z, past, plans)
        distance: Tensor = (predicted - z_goal.unsqueeze(1)).square().sum(-1)
        if steps == "last":
            return distance[..., -1]
        mean = distance.mean(-1)
        return mean if steps == "mean" else distance.amin(-1) + mean / 20

    return cost
