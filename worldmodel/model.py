"""WorldModel: encode observations, predict the next embedding, roll a plan out, cost it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.contract import Encoder, Predictor, Steered, roll_out
from worldmodel.encoder import ActionEncoder
from worldmodel.goals import FRAMES, Frames, near
from worldmodel.imagine import Imagination
from worldmodel.records import Observations, as_tensor, each, named

__all__ = ["WorldModel", "goal_cost"]


class WorldModel(nn.Module):
    """An encoder, an action encoder and a predictor around one embedding.

    Nothing is cached, no argument written to. Parts may be your own, see `worldmodel.contract`.

    Args:
        encoder: observations [B, T, ...] -> [B, T, D].
        action_encoder: actions [B, T, A] -> [B, T, a].
        predictor: embeddings [B, T, D] and encoded actions [B, T, a] -> [B, T, D], T ≤ history.
    Raises: ValueError if encoder and predictor differ in D, or a predictor that names its
        `action_width` meets an action encoder of another `dim`.
    Source: LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(
        self, encoder: Encoder, action_encoder: Callable[[Tensor], Tensor], predictor: Predictor
    ) -> None:
        super().__init__()
        if encoder.dim != predictor.dim:
            raise ValueError(
                f"encoder and predictor must share one dim, got {encoder.dim} and {predictor.dim}"
            )
        if isinstance(predictor, Steered) and isinstance(action_encoder, ActionEncoder):
            width, got = predictor.action_width, action_encoder.dim
            if width != got:
                raise ValueError(
                    f"action_encoder must have dim {width}, the predictor's action_width, got {got}"
                )
        # Any: parts hold more than the contract names, sizes of frames for example.
        self.encoder: Any = encoder
        self.action_encoder: Any = action_encoder
        self.predictor: Any = predictor

    def encode(self, frames: Observations) -> Tensor:
        """Embed observations, each frame alone: [B, T, D].

        Frames are [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1; or whatever else the
        encoder takes, a tensor [B, T, ...] or a mapping of them, or NumPy's arrays.
        """
        return self.encoder(each(frames, as_tensor))

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict from z [B, T, D], T ≤ history, and actions [B, T, A] each next embedding.

        `actions[:, t]` is done after `z[:, t]`; of the result [B, T, D], `[:, t]` is for t + 1.
        """
        return self.predictor(z, self.action_encoder(as_tensor(actions)))

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict step after step, each prediction feeding the next: [B, H, D].

        Args:
            z: [B, T, D], known embeddings, T ≥ 1; the last `history` of them are looked at.
            actions: [B, T − 1 + H, A], H ≥ 1: those done between the known embeddings, the plan.
        Raises: ValueError if there are too few actions.
        """
        if actions.shape[1] < z.shape[1]:
            raise ValueError(
                f"actions must be [B, T - 1 + H, A] with T = {z.shape[1]} and H >= 1, "
                f"got {list(actions.shape)}"
            )
        return roll_out(self.predictor, z, self.action_encoder(as_tensor(actions)))

    def imagine(
        self,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
        *,
        rows: int | None = None,
    ) -> Imagination:
        """Make the model ready to plan, once: see `Imagination`, whose arguments these are.

        Raises: ValueError if the model is in training mode.
        """
        if self.training:  # dropout and batch statistics would make futures noisy
            raise ValueError("model must be in eval mode, call model.eval() first")
        parts = self.encoder, self.action_encoder, self.predictor
        return Imagination(*parts, dtype=dtype, compile=compile, cuda_graph=cuda_graph, rows=rows)


def goal_cost(
    model: WorldModel,
    frames: Observations,
    goal: Observations,
    *,
    past_actions: Tensor | None = None,
    steps: Frames = "last",
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    compile: bool = False,
    cuda_graph: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Cost of plans: how far from the goal's embedding the model expects to end.

    The short form of what a control loop writes out, the first line and the goal before the loop:

        imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
        futures = imagination.look(frames, past_actions)
        goals.near(imagination.embed(goal), frames=steps).of(futures)

    Args:
        model: in eval mode.
        frames: [B, T, C, H, W], what has been seen, the newest last; or other observations.
        goal: [B, C, H, W], what should be seen.
        past_actions: [B, T − 1, A], what was done between the frames; needed where T > 1.
        steps: which futures are compared with the goal, the `frames` of `goals.near`.
        dtype, rows, compile, cuda_graph: as `WorldModel.imagine`.
    Returns: a function of actions [B, S, H, A], as trained, to costs [B, S]; differentiable.
    Raises: ValueError if the model is in training mode, shapes disagree, or CUDA is absent.
    Source: LeWM, arXiv:2603.19312, Section 3 (planning); sum over D as in the released code.
    """
    if steps not in FRAMES:
        raise ValueError(f'steps must be "last", "mean" or "nearest", got {steps!r}')
    imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
    seen, one = (each(observed, as_tensor) for observed in (frames, goal))
    shapes = [{n: list(t.shape) for n, t in named(o, "frames").items()} for o in (seen, one)]
    if {name: shape[:1] + shape[2:] for name, shape in shapes[0].items()} != shapes[1]:
        raise ValueError(
            "frames and goal must be [B, T, C, H, W] and [B, C, H, W], or other observations "
            f"alike, got {shapes[0]} and {shapes[1]}"
        )
    return near(imagination.embed(one), steps).of(imagination.look(seen, past_actions))
