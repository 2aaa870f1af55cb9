"""WorldModel: encode observations, predict the next embedding, roll a plan out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.contract import Encoder, Predictor, Steered, roll_out
from worldmodel.encoder import ActionEncoder
from worldmodel.imagine import Imagination
from worldmodel.records import Observations, as_tensor, each

__all__ = ["WorldModel"]


class WorldModel(nn.Module):
    """An encoder, an action encoder and a predictor around one embedding.

    Tensors in, tensors out: nothing is cached and no argument is written to. The parts may be your
    own; `worldmodel.contract` says what each must offer.

    Args:
        encoder: observations [B, T, ...] -> [B, T, D]; has `dim`.
        action_encoder: actions [B, T, A] -> [B, T, a].
        predictor: embeddings [B, T, D] and encoded actions [B, T, a] -> [B, T, D], T ≤ history;
            has `dim` and `history`.
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
        """Embed observations, each frame alone.

        Args:
            frames: [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1; or whatever else the
                encoder takes, a tensor [B, T, ...] or a mapping of them. NumPy's arrays are taken.
        Returns: [B, T, D].
        """
        out: Tensor = self.encoder(each(frames, as_tensor))
        return out

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from what came before.

        Args:
            z: [B, T, D], T ≤ history.
            actions: [B, T, A]; `actions[:, t]` is done after `z[:, t]`.
        Returns: [B, T, D]; `[:, t]` predicts the embedding at t + 1.
        """
        out: Tensor = self.predictor(z, self.action_encoder(as_tensor(actions)))
        return out

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict step after step, each prediction feeding the next.

        The first T − 1 actions are those already done between the known embeddings; the other H
        are the plan. Only the last `history` embeddings are looked at.

        Args:
            z: [B, T, D], known embeddings, T ≥ 1.
            actions: [B, T − 1 + H, A], H ≥ 1.
        Returns: [B, H, D]; `[:, h]` follows the plan's action h.
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
        compile: bool = False,  # noqa: A002, torch's own word
        cuda_graph: bool = False,
        *,
        rows: int | None = None,
    ) -> Imagination:
        """Make the model ready to plan, once: see `Imagination`, whose arguments these are.

        Raises: ValueError if the model is in training mode: dropout and batch statistics would
            make futures noisy.
        """
        if self.training:
            raise ValueError("model must be in eval mode, call model.eval() first")
        return Imagination(
            self.encoder, self.action_encoder, self.predictor,
            dtype=dtype, compile=compile, cuda_graph=cuda_graph, rows=rows,
        )  # fmt: skip
