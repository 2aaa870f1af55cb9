"""LeWM as one would write it down: nn.Modules, F.scaled_dot_product_attention, its recipe.

Its weights have our names, so that both compute the same numbers. It keeps what autograd keeps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from bench_sigreg import published
from torch import Tensor, nn

from sigreg import trapezoid_rule
from worldmodel import Batch


class Head(nn.Module):
    """Linear, batch norm, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.norm = nn.Linear(dim, hidden), nn.BatchNorm1d(hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        h = F.gelu(self.norm(self.expand(x.flatten(0, -2))))
        return self.contract(h).view(x.shape)


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, dim: int, heads: int, width: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.to_qkv = nn.Linear(dim, 3 * heads * width, bias=not causal)
        self.to_out = nn.Linear(heads * width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        B, T, _ = x.shape
        q, k, v = (
            part.view(B, T, self.heads, -1).transpose(1, 2)
            for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=dropout)
        y = self.to_out(y.transpose(1, 2).reshape(B, T, -1))
        return F.dropout(y, self.dropout, self.training)


def mlp(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """Linear, GELU, linear, with dropout."""
    first, last = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), last, nn.Dropout(dropout))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.attention = Attention(dim, heads, dim // heads, causal=False, dropout=0.0)
        self.mlp = mlp(dim, 4 * dim, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SteeredBlock(nn.Module):
    """Causal transformer block with AdaLN-zero."""

    def __init__(self, dim: int, heads: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.plain = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(dim, heads, width, causal=True, dropout=dropout)
        self.mlp = mlp(dim, hidden, dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, T, D] under [B, T, D] -> [B, T, D]."""
        b1, s1, g1, b2, s2, g2 = self.modulation(F.silu(condition)).chunk(6, dim=-1)
        x = x + g1 * self.attention(self.norm1(self.plain(x) * (1 + s1) + b1))
        return x + g2 * self.mlp(self.norm2(self.plain(x) * (1 + s2) + b2))


class Encoder(nn.Module):
    """Vision Transformer and head."""

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int, head: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm, self.projector = nn.LayerNorm(dim, eps=1e-12), Head(dim, head)
        for name, of in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(of).view(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, 3, H, W] of bytes -> [B, T, D]."""
        x = (frames.flatten(0, 1).float() / 255 - self.mean) / self.std
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.projector(self.norm(x)[:, 0]).unflatten(0, frames.shape[:2])


class Actions(nn.Module):
    """Linear mix and MLP."""

    def __init__(self, action_dim: int, dim: int) -> None:
        super().__init__()
        self.mix, self.expand = nn.Linear(action_dim, action_dim), nn.Linear(action_dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)

    def forward(self, actions: Tensor) -> Tensor:
        """[B, T, A] -> [B, T, D]."""
        return self.contract(F.silu(self.expand(self.mix(actions))))


class Predictor(nn.Module):
    """Causal transformer, steered by the actions."""

    def __init__(self, dim: int, depth: int, history: int, head: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, history, dim))
        blocks = (SteeredBlock(dim, 16, 64, 2048, 0.1) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.projector = nn.LayerNorm(dim), Head(dim, head)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """[B, T, D] and [B, T, D] -> [B, T, D]."""
        x = z + self.positions[:, : z.shape[1]]
        for block in self.blocks:
            x = block(x, actions)
        return self.projector(self.norm(x))


class PlainLeWM(nn.Module):
    """LeWM with the settings of `presets.lewm`, which a try-out may shrink."""

    def __init__(self, size: int = 224, depth: int = 12, predictor_depth: int = 6) -> None:
        super().__init__()
        self.encoder = Encoder(size, 14, 192, depth, 3, 2048)
        self.action_encoder = Actions(10, 192)
        self.predictor = Predictor(192, predictor_depth, 3, 2048)

    def loss(self, batch: Batch, weight: float) -> Tensor:
        """Next-embedding error and weight × the published SIGReg."""
        z = self.encoder(batch.frames)
        found = self.predictor(z[:, :-1], self.action_encoder(batch.actions[:, :-1]))
        rule = trapezoid_rule(17, 3.0)
        return F.mse_loss(found, z[:, 1:]) + weight * published(z.transpose(0, 1), rule)


def plain_step(model: PlainLeWM, batch: Batch, weight: float) -> Callable[[], object]:
    """Forward, backward, clipping and AdamW on one batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch, weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
