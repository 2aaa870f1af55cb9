"""The predictor: past embeddings and actions to the next embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.contract import Rollout
from worldmodel.layers import AdaLNBlock, ProjectionHead
from worldmodel.rollout import PlanRollout

__all__ = ["CausalPredictor"]


class CausalPredictor(nn.Module):
    """Causal transformer over a short history, each block steered by the actions.

    Token t sees embeddings and actions up to t and predicts embedding t + 1. The defaults are the
    published ones: 10,791,360 parameters, and 792,768 in the head.

    Args:
        dim: D, embedding width and token width.
        depth: number of blocks.
        heads: attention heads.
        history: most frames it looks back on; one learned position for each.
        dim_head: width of a head; heads × dim_head need not be D.
        mlp_dim: hidden width of a block.
        dropout: in attention and MLP; 0.1 was the published optimum, 0 costs 18 points of success.
        projector_dim: hidden width of the projection head.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded), T ≤ history -> [B, T, D].
    Raises: ValueError if T exceeds `history` or shapes disagree.
    Source: LeWM, arXiv:2603.19312, Section 3 and Table 9 (dropout).
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        heads: int = 16,
        history: int = 3,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        projector_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.config = {
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "history": history,
            "dim_head": dim_head,
            "mlp_dim": mlp_dim,
            "dropout": dropout,
            "projector_dim": projector_dim,
        }
        self.dim = self.action_width = dim
        self.history = history
        self.positions = nn.Parameter(torch.randn(1, history, dim))
        self.blocks = nn.ModuleList(
            AdaLNBlock(dim, heads, dim_head, mlp_dim, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.projector = ProjectionHead(dim, projector_dim)

    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, D] and encoded actions [B, T, D]."""
        wrong = embeddings.dim() != 3 or embeddings.shape[-1] != self.dim
        if wrong or embeddings.shape != actions.shape:
            raise ValueError(
                "embeddings and actions must both be [B, T, "
                f"{self.dim}], got {list(embeddings.shape)} and {list(actions.shape)}"
            )
        length = embeddings.shape[1]
        if not 0 < length <= self.history:
            raise ValueError(f"T must be between 1 and history {self.history}, got {length}")
        x = embeddings + self.positions[:, :length]
        for block in self.blocks:
            x = block(x, actions)
        return self.read_out(x)

    def read_out(self, x: Tensor) -> Tensor:
        """From the last block's tokens [..., D] to predicted embeddings [..., D]."""
        out: Tensor = self.projector(self.norm(x))
        return out

    def quick_rollout(
        self,
        *,
        rows: int | None = None,
        compile: bool = False,  # noqa: A002, torch's own word
    ) -> Rollout:
        """Read the weights, once, for many plans: `worldmodel.rollout.PlanRollout`."""
        return PlanRollout(self, rows=rows, compile=compile)
