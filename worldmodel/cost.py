"""From a model and two pictures to a cost of plans."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from worldmodel.model import WorldModel
from worldmodel.patches import PatchPredictor, PatchRollout
from worldmodel.predictor import CausalPredictor
from worldmodel.rollout import PlanRollout

__all__ = ["goal_cost"]


def goal_cost(
    model: WorldModel,
    frames: Tensor,
    goal: Tensor,
    *,
    past_actions: Tensor | None = None,
    steps: Literal["last", "mean", "nearest"] = "last",
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    compile: bool = False,  # noqa: A002, torch's own word
    cuda_graph: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Cost of plans: how far from the goal's embedding the model expects to end.

        cost(a) = ‖ẑ_H(a) − z_goal‖²                 steps = "last"
        cost(a) = mean_h ‖ẑ_h(a) − z_goal‖²          steps = "mean"
        cost(a) = min_h ‖ẑ_h(a) − z_goal‖² + mean/20 steps = "nearest"

    Frames, goal and past actions are encoded here, once; each call of the cost encodes its actions
    and rolls them out (`PlanRollout`). It equals the plain rollout to 1e-5 in float32 and is
    differentiable in the actions. Weights are read here: make a new cost after a training step.

    Args:
        model: in eval mode; dropout and batch statistics would make a cost noisy. Over patches
            (DINO-WM) the sum runs over the D = P · d coordinates of all of them.
        frames: [B, T, C, H, W], what has been seen, the newest last.
        goal: [B, C, H, W], what should be seen.
        past_actions: [B, T − 1, A], what was done between the frames; needed where T > 1.
        steps: which predictions are compared with the goal. "last" is the published cost; "mean"
            also rewards arriving early, and shuns detours; "nearest" asks to come close at any
            time, with just enough of the mean to come soon.
        dtype: of the rollout; frames are encoded and distances taken in the model's own. None
            keeps the model's. bfloat16 is faster where the processor multiplies matrices in it
            (AMX, tensor cores) and slower where it does not.
        rows: plans that are rolled out together, see `PlanRollout`.
        compile: send the rollout through `torch.compile`; the first call takes a minute or two.
        cuda_graph: record the cost as a CUDA graph on its first call and replay it from then on:
            no gradients, one recording per shape of actions, not inside another recording.
    Returns: a function of actions [B, S, H, A], in the units the model was trained on, to costs
        [B, S].
    Raises: ValueError if the model is in training mode, shapes disagree, or `cuda_graph` is asked
        for without CUDA.
    Source: LeWM, arXiv:2603.19312, Section 3 (planning); sum over D as in the released code.
    """
    B, T, A = _check(model, frames, goal)
    weight = model.action_encoder.mix.weight
    if past_actions is None:
        past_actions = weight.new_zeros((B, 0, A))
    if past_actions.shape != (B, T - 1, A):
        raise ValueError(
            f"past_actions must be [B, T - 1, A] = {[B, T - 1, A]}, got {list(past_actions.shape)}"
        )
    if steps not in ("last", "mean", "nearest"):
        raise ValueError(f'steps must be "last", "mean" or "nearest", got {steps!r}')
    if cuda_graph and not weight.is_cuda:
        raise ValueError(f"cuda_graph needs a model on a CUDA device, got {weight.device}")
    action_encoder, predictor = model.action_encoder, model.predictor
    if dtype is not None and dtype != weight.dtype:
        action_encoder, predictor = copy.deepcopy((action_encoder, predictor))
        action_encoder.to(dtype)
        predictor.to(dtype)
    kept = weight.dtype if dtype is None else dtype
    with torch.no_grad():
        z = model.encode(frames).to(kept)
        z_goal = model.encode(goal.unsqueeze(1)).unsqueeze(1)
        past = action_encoder(past_actions.to(kept))
    rollout = _rollout_of(predictor, rows, compile)

    def cost(actions: Tensor) -> Tensor:
        if actions.dim() != 4 or actions.shape[0] != B or actions.shape[3] != A:
            raise ValueError(
                f"actions must be [B, S, H, A] = [{B}, S, H, {A}], got {list(actions.shape)}"
            )
        predicted = rollout(z, past, action_encoder(actions.to(kept)))
        if steps == "last":
            predicted = predicted[:, :, -1:]
        distance = (predicted.to(z_goal.dtype) - z_goal).square().sum(-1)
        mean = distance.mean(-1)
        return distance.amin(-1) + mean / 20 if steps == "nearest" else mean

    return _Graph(cost) if cuda_graph else cost


def _rollout_of(
    predictor: CausalPredictor | PatchPredictor,
    rows: int | None,
    compile: bool,  # noqa: A002
) -> PlanRollout | PatchRollout:
    """The quick rollout that suits a predictor."""
    if isinstance(predictor, CausalPredictor):
        return PlanRollout(predictor, rows=rows, compile=compile)
    if compile:
        raise ValueError("compile must be False for a PatchPredictor, got True")
    return PatchRollout(predictor, rows=rows)


def _check(model: WorldModel, frames: Tensor, goal: Tensor) -> tuple[int, int, int]:
    """B, T and A, of a model and pictures that go together."""
    if model.training:
        raise ValueError("model must be in eval mode, call model.eval() first")
    if frames.dim() != 5 or goal.shape != frames[:, 0].shape:
        raise ValueError(
            "frames and goal must be [B, T, C, H, W] and [B, C, H, W], "
            f"got {list(frames.shape)} and {list(goal.shape)}"
        )
    return frames.shape[0], frames.shape[1], model.action_encoder.action_dim


class _Graph:
    """A function of one CUDA tensor, recorded once per shape."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("cuda_graph records no gradients: plan with cuda_graph=False")
        if x.shape not in self.recorded:
            self.recorded[x.shape] = self._record(x)
        graph, given, result = self.recorded[x.shape]
        given.copy_(x)
        graph.replay()
        return result.clone()

    @torch.no_grad()
    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = x.clone()
        # Libraries set themselves up on first use, which must not be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.function(given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.function(given)
        return graph, given, result
