"""A predictor that answers for every step of a plan at once, from where the plan begins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.layers import ProjectionHead, ViTBlock, feed_forward

__all__ = ["PrefixPredictor"]


class PrefixPredictor(nn.Module):
    """What an embedding becomes under each prefix of the actions, in one pass.

        p_1 … p_T = transformer(W z_0, a_0, …, a_{T−1})      causal, the output at each action
        ẑ_k       = G(z_0, p_k)                              residual blocks, each k alone

    No prediction is fed back, so errors do not pile up step by step, and a plan of H actions costs
    one pass instead of H. `jepa_loss` on windows of H + 1 frames trains it as published: output t
    answers for t + 1 actions from the window's first frame; the later frames are targets alone.
    A plan starts from the newest known frame: it has no memory of the frames before.

    Args:
        dim: D, embedding width and token width.
        history: most actions it answers for at once; longer plans go on from its last answer.
        prefix_depth: blocks of the transformer over actions.
        heads: its attention heads; divides `dim`.
        depth: blocks of G.
        mlp_dim: hidden width of all blocks.
        dropout: in the blocks of G.
        projector_dim: hidden width of the projection head.
    Shapes: embeddings [B, T, D], of which the first is looked at, actions [B, T, D] (encoded),
        T ≤ history -> [B, T, D].
    Raises: ValueError if T exceeds `history`, shapes disagree, or heads do not divide.
    Source: Fast-LeWM, arXiv:2606.26217. Ours leaves out the value-only projection of its blocks,
        and its positions are learned.
    """

    def __init__(
        self,
        dim: int = 192,
        history: int = 5,
        prefix_depth: int = 3,
        heads: int = 6,
        depth: int = 6,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        projector_dim: int = 2048,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads {heads}, got {dim}")
        self.config = {
            "dim": dim,
            "history": history,
            "prefix_depth": prefix_depth,
            "heads": heads,
            "depth": depth,
            "mlp_dim": mlp_dim,
            "dropout": dropout,
            "projector_dim": projector_dim,
        }
        self.dim = self.action_width = dim
        self.history = history
        self.start = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + history, dim))
        self.prefix = nn.ModuleList(
            ViTBlock(dim, heads, mlp_dim, causal=True) for _ in range(prefix_depth)
        )
        self.prefix_norm = nn.LayerNorm(dim)
        last = nn.Linear(4 * dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.fusion = nn.Sequential(
            nn.LayerNorm(3 * dim), nn.Linear(3 * dim, 4 * dim), nn.GELU(), last
        )
        self.blocks = nn.ModuleList(_Residual(dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.projector = ProjectionHead(dim, projector_dim)

    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict from embeddings [B, T, D] and encoded actions [B, T, D]; `[:, t]` is t + 1."""
        if embeddings.dim() != 3 or embeddings.shape != (*actions.shape[:2], self.dim):
            raise ValueError(
                "embeddings and actions must both be [B, T, "
                f"{self.dim}], got {list(embeddings.shape)} and {list(actions.shape)}"
            )
        length = embeddings.shape[1]
        if not 0 < length <= self.history:
            raise ValueError(f"T must be between 1 and history {self.history}, got {length}")
        first = embeddings[:, :1]
        tokens = torch.cat([self.start(first), actions], dim=1) + self.positions[:, : 1 + length]
        for block in self.prefix:
            tokens = block(tokens)
        prefix = self.prefix_norm(tokens[:, 1:])
        x = first.expand_as(prefix)
        x = x + self.fusion(torch.cat([x, prefix, x * prefix], dim=-1))
        for block in self.blocks:
            x = block(x, prefix)
        out: Tensor = self.projector(self.norm(x))
        return out

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D] and encoded actions [n, T − 1 + H, D]: [n, H, D], `history` at a time.

        Of the known embeddings the newest counts.
        """
        start, out = z[:, -1:], []
        for part in actions[:, z.shape[1] - 1 :].split(self.history, dim=1):
            out.append(self(start.expand(-1, part.shape[1], -1), part))
            start = out[-1][:, -1:]
        return torch.cat(out, dim=1)


class _Residual(nn.Module):
    """x ← x + g · mlp((1 + s) · normalise(x) + b), steered by the prefix; new, the identity."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 3 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = feed_forward(dim, hidden_dim, dropout)

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        b, s, g = self.modulation(F.silu(prefix)).chunk(3, dim=-1)
        return torch.addcmul(x, g, self.mlp(torch.addcmul(b, 1 + s, self.norm(x))))
