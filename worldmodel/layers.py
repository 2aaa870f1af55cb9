"""Building blocks shared by encoders and predictor.

Letters: B sequences, T tokens, D dims, h heads, d dims of a head.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AdaLNBlock",
    "Attention",
    "Pixels",
    "ProjectionHead",
    "ViTBlock",
    "feed_forward",
    "fold_modulation",
]


# Channel statistics of ImageNet, as the published data pipeline uses them.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Pixels(nn.Module):
    """Frames to normalised numbers in the precision of the model.

    Shapes: frames [..., 3, H, W], uint8 in 0…255 or floating point in 0…1 -> [N, 3, H, W].
    Raises: ValueError for another shape; TypeError for another dtype.
    Warns: RuntimeWarning if the first floats it sees reach beyond 2: they are 0…255, most likely.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self._trusted = False

    def forward(self, frames: Tensor, size: int | None = None) -> Tensor:
        """Scale, resize to `size` × `size` if that is given, and normalise."""
        if frames.dim() < 4 or frames.shape[-3] != 3:
            raise ValueError(f"frames must be [..., 3, H, W], got {list(frames.shape)}")
        if not (frames.dtype == torch.uint8 or frames.dtype.is_floating_point):
            raise TypeError(
                f"frames must be uint8 in 0…255 or floating point in 0…1, got {frames.dtype}"
            )
        x = frames.flatten(0, -4).to(self.mean.dtype)
        if frames.dtype == torch.uint8:
            x = x / 255
        elif not self._trusted:
            self._look_at(x)
        if size is not None and x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        return (x - self.mean) / self.std

    def _look_at(self, x: Tensor) -> None:
        """Wait for the device once, until the range of floats is known to be right."""
        if torch.compiler.is_compiling() or x.is_meta or not x.numel():
            return
        largest = float(x.detach().amax())
        self._trusted = not largest > 2
        if not self._trusted:
            warnings.warn(
                "frames must be uint8 in 0…255 or floating point in 0…1, got floating point up to "
                f"{largest:g}; divide it by 255",
                RuntimeWarning,
                stacklevel=2,
            )


class ProjectionHead(nn.Module):
    """Two linear maps around BatchNorm and GELU, applied to each vector alone.

    A final LayerNorm pins every embedding to a sphere, which no Gaussian lives on; the batch
    statistics of this head give the regularizer back its freedom.

    Args:
        dim: D, width of input and output.
        hidden_dim: width between, 2048 as published.
    Shapes: [..., D] -> [..., D].
    Source: LeWM, arXiv:2603.19312, Section 3; sizes of the released weights.
    """

    def __init__(self, dim: int, hidden_dim: int = 2048) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project each vector of [..., D]."""
        h = _gelu(self.norm(self.expand(x.flatten(0, -2))))
        out: Tensor = self.contract(h).unflatten(0, x.shape[:-1])
        return out


class Attention(nn.Module):
    """Multi-head self-attention whose heads may be wider than D / h.

    Shapes: [B, T, D] -> [B, T, D].
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, *, bias: bool, causal: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=bias)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence of [B, T, D]."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=self.causal, dropout_p=self.dropout if self.training else 0.0
        )
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)


class _GELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _gelu(x)


def _gelu(x: Tensor) -> Tensor:
    """GELU of a tensor nobody else holds: in place where no gradient is recorded."""
    out: Tensor = F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)
    return out


def feed_forward(dim: int, hidden_dim: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear, GELU, linear, with dropout behind each half."""
    return nn.Sequential(
        nn.Linear(dim, hidden_dim),
        _GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_dim, dim),
        nn.Dropout(dropout),
    )


class ViTBlock(nn.Module):
    """Pre-norm transformer block of the Vision Transformer; causal for sequences in time.

    Shapes: [B, T, D] -> [B, T, D].
    Source: Dosovitskiy et al., arXiv:2010.11929; eps of the published configuration.
    """

    def __init__(self, dim: int, heads: int, hidden_dim: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-12)
        self.attention = Attention(dim, heads, dim // heads, bias=True, causal=causal)
        self.norm2 = nn.LayerNorm(dim, eps=1e-12)
        self.mlp = feed_forward(dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def fold_modulation(modulation: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias that give 1 + scale where the linear map gives the scale.

    Shapes: [6 D, D] and [6 D]; shift, scale and gate of attention, then those of the MLP.
    """
    bias = modulation.bias.unflatten(0, (6, -1)).clone()
    bias[1::3] += 1  # a slice: a list of indices is copied from the host at every call
    return modulation.weight, bias.flatten()


class AdaLNBlock(nn.Module):
    """Causal transformer block steered by a condition through AdaLN-zero.

        x ← x + g₁ · attention(norm((1 + s₁) · normalise(x) + b₁))
        x ← x + g₂ · mlp(norm((1 + s₂) · normalise(x) + b₂))

    Shift b, scale s and gate g are linear in the condition and start at zero, so a new block is
    the identity. The affine `norm` behind the modulation is the released model's own.

    Shapes: x [B, T, D], condition [B, T, D] -> [B, T, D].
    Source: Peebles & Xie, arXiv:2212.09748; LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dim_head, bias=False, causal=True, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, hidden_dim, dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Transform tokens [B, T, D] under a condition [B, T, D]."""
        return self.advance(x, self.modulate(condition), self.attention)

    def modulate(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Shift, 1 + scale and gate of attention, then those of the MLP, each like [..., D]."""
        weight, bias = fold_modulation(self.modulation)
        return F.linear(F.silu(condition), weight, bias).chunk(6, dim=-1)

    def advance(
        self, x: Tensor, modulation: Sequence[Tensor], attend: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Transform tokens under a known modulation, with any way of attending.

        Args:
            x: [T, ..., D].
            modulation: what `modulate` returns for these tokens.
            attend: [T, ..., D] -> [n, ..., D]; where n < T, it and we answer for the last n alone.
        Returns: [n, ..., D].
        """
        b1, s1, g1, b2, s2, g2 = modulation
        dim = x.shape[-1:]
        attended = attend(self.norm1(torch.addcmul(b1, s1, _normalise(x, dim))))
        # shape[0], because len() would fix the number of sequences in an exported graph.
        last = attended.shape[0]
        if last < x.shape[0]:
            x, g1, b2, s2, g2 = (t[-last:] for t in (x, g1, b2, s2, g2))
        x = torch.addcmul(x, g1, attended)
        return torch.addcmul(x, g2, self.mlp(self.norm2(torch.addcmul(b2, s2, _normalise(x, dim)))))


def _normalise(x: Tensor, dim: torch.Size) -> Tensor:
    return F.layer_norm(x, list(dim), eps=1e-6)
