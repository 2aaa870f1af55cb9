"""WorldModel: encode frames, predict the next embedding, roll a plan out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.encoder import ActionEncoder, ConvEncoder, FrameEncoder
from worldmodel.patches import DinoPatches, PatchPredictor
from worldmodel.predictor import CausalPredictor

__all__ = ["WorldModel"]


class WorldModel(nn.Module):
    """An encoder, an action encoder and a predictor that share one embedding width.

    Tensors in, tensors out: nothing is cached and no argument is written to.

    Args:
        encoder: frames [B, T, C, H, W] -> [B, T, D].
        action_encoder: actions [B, T, A] -> [B, T, D]; for a PatchPredictor its action width.
        predictor: embeddings and encoded actions [B, T, D] -> [B, T, D], T ≤ history.
    Raises: ValueError if the three widths differ.
    Source: LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(
        self,
        encoder: FrameEncoder | ConvEncoder | DinoPatches,
        action_encoder: ActionEncoder,
        predictor: CausalPredictor | PatchPredictor,
    ) -> None:
        super().__init__()
        widths = (encoder.dim, action_encoder.config["dim"], predictor.dim)
        if isinstance(predictor, PatchPredictor):
            wanted = (predictor.dim, predictor.action_width, predictor.dim)
            if widths != wanted:
                raise ValueError(
                    "encoder, action_encoder and predictor must have widths "
                    f"{wanted} (patches side by side, action, patches), got {widths}"
                )
        elif len(set(widths)) != 1:
            raise ValueError(
                f"encoder, action_encoder and predictor must share one dim, got {widths}"
            )
        self.encoder = encoder
        self.action_encoder = action_encoder
        self.predictor = predictor

    def encode(self, frames: Tensor) -> Tensor:
        """Embed frames, each alone.

        Args:
            frames: [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1.
        Returns: [B, T, D].
        """
        out: Tensor = self.encoder(frames)
        return out

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from what came before.

        Args:
            z: [B, T, D], T ≤ history.
            actions: [B, T, A]; `actions[:, t]` is done after `z[:, t]`.
        Returns: [B, T, D]; `[:, t]` predicts the embedding at t + 1.
        """
        out: Tensor = self.predictor(z, self.action_encoder(actions))
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
        steps = actions.shape[1] - (z.shape[1] - 1)
        if steps < 1:
            raise ValueError(
                f"actions must be [B, T - 1 + H, A] with T = {z.shape[1]} and H >= 1, "
                f"got {list(actions.shape)}"
            )
        encoded = self.action_encoder(actions)
        for end in range(z.shape[1], z.shape[1] + steps):
            start = max(0, end - self.predictor.history)
            following = self.predictor(z[:, start:end], encoded[:, start:end])[:, -1:]
            z = torch.cat([z, following], dim=1)
        return z[:, -steps:]
