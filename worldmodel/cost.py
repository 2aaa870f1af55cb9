"""From a model and two pictures to a cost of plans."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.goals import Frames, PlanCost, near
from worldmodel.model import WorldModel
from worldmodel.records import Observations, as_tensor, each, named

__all__ = ["goal_cost"]


def goal_cost(
    model: WorldModel,
    frames: Observations,
    goal: Observations,
    *,
    past_actions: Tensor | None = None,
    steps: Frames = "last",
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    compile: bool = False,  # noqa: A002, torch's own word
    cuda_graph: bool = False,
) -> PlanCost:
    """Cost of plans: how far from the goal's embedding the model expects to end.

    The short form of

        imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
        futures = imagination.look(frames, past_actions)
        goals.near(imagination.embed(goal), frames=steps).of(futures)

    In a control loop write the long form: the first line belongs before the loop, and so does the
    goal.

    Args:
        model: in eval mode.
        frames: [B, T, C, H, W], what has been seen, the newest last; or other observations.
        goal: [B, C, H, W], what should be seen.
        past_actions: [B, T − 1, A], what was done between the frames; needed where T > 1.
        steps: which futures are compared with the goal, the `frames` of `goals.near`.
        dtype: as `WorldModel.imagine`.
        rows: as `WorldModel.imagine`.
        compile: as `WorldModel.imagine`.
        cuda_graph: as `WorldModel.imagine`.
    Returns: a function of actions [B, S, H, A], in the units the model was trained on, to costs
        [B, S]; differentiable in the actions.
    Raises: ValueError if the model is in training mode, shapes disagree, or `cuda_graph` is asked
        for without CUDA.
    Source: LeWM, arXiv:2603.19312, Section 3 (planning); sum over D as in the released code.
    """
    if steps not in ("last", "mean", "nearest"):
        raise ValueError(f'steps must be "last", "mean" or "nearest", got {steps!r}')
    imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
    seen, one = (each(observed, as_tensor) for observed in (frames, goal))
    shapes = [{n: list(t.shape) for n, t in named(o, "frames").items()} for o in (seen, one)]
    if {name: shape[:1] + shape[2:] for name, shape in shapes[0].items()} != shapes[1]:
        raise ValueError(
            "frames and goal must be [B, T, C, H, W] and [B, C, H, W], or other observations "
            f"alike, got {shapes[0]} and {shapes[1]}"
        )
    futures = imagination.look(seen, past_actions)
    return near(imagination.embed(one), steps).of(futures)
