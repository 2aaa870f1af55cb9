"""Building blocks of encoders and predictors.

Letters: B sequences, T tokens, D dims, h heads, d dims of a head.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["AdaLNBlock", "Attention", "Pixels", "ProjectionHead", "ViTBlock", "feed_forward"]


_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


def given(arguments: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """The arguments of a constructor, from `locals()` in its first line: a part's `config`.

    NumPy's numbers become Python's, for JSON.
    """
    own = {key: v for key, v in arguments.items() if key not in ("self", "__class__", *but)}
    return {key: v.item() if type(v).__module__ == "numpy" else v for key, v in own.items()}


def in_parts(each: Callable[[Tensor], Tensor], frames: Tensor, parts: int) -> Tensor:
    """`each` of frames [..., C, H, W], in parts; activations are kept for one part at a time.

    `each` maps every frame independently, [..., C, H, W] -> [N, D]. The backward pass computes all
    parts but the last again, so the gradient equals that of a single part up to rounding.
    """
    if parts == 1 or not torch.is_grad_enabled():
        return each(frames)
    *some, last = frames.flatten(0, -4).chunk(parts)
    again = [checkpoint(each, part, use_reentrant=False) for part in some]
    return torch.cat([*again, each(last)])


def check_history(embeddings: Tensor, history: int) -> None:
    """Refuse a window of more than `history` frames."""
    if not 0 < (T := embeddings.shape[1]) <= history:
        raise ValueError(f"T of embeddings must be between 1 and history {history}, got {T}")


class Pixels(nn.Module):
    """Frames to normalised numbers in the dtype of the model.

    Shapes: frames [..., 3, H, W], uint8 in 0…255 or floating point in 0…1 -> [N, 3, size, size].
    Raises: ValueError for another shape; TypeError for another dtype.
    Warns: RuntimeWarning if the first floats it sees exceed 2: they are probably 0…255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, *, resize: bool = False) -> None:
        super().__init__()
        # Channel statistics of ImageNet, as the published data pipeline uses them.
        for name, of in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(of).view(3, 1, 1), persistent=False)
        self.size, self.resize, self._trusted = size, resize, False

    def forward(self, frames: Tensor) -> Tensor:
        """Scale, resize and normalise."""
        if not isinstance(frames, Tensor):
            raise TypeError(f"frames must be a tensor, got {type(frames).__name__}")
        side = "H, W" if self.resize else f"{self.size}, {self.size}"
        wrong = not self.resize and frames.shape[-2:] != (self.size, self.size)
        if frames.dim() < 4 or frames.shape[-3] != 3 or wrong:
            raise ValueError(f"frames must be [..., 3, {side}], got {list(frames.shape)}")
        if not (frames.dtype == torch.uint8 or frames.dtype.is_floating_point):
            raise TypeError(
                f"frames must be uint8 in 0…255 or floating point in 0…1, got {frames.dtype}"
            )
        x = frames.flatten(0, -4).to(self.mean.dtype)
        if frames.dtype == torch.uint8:
            x = x / 255
        elif not (self._trusted or torch.compiler.is_compiling() or x.is_meta or not x.numel()):
            # This waits for the device, but only until the range was right once.
            largest = float(x.detach().amax())
            self._trusted = not largest > 2
            if not self._trusted:
                warnings.warn(
                    "frames must be uint8 in 0…255 or floating point in 0…1, got floating point up "
                    f"to {largest:g}; divide it by 255",
                    RuntimeWarning,
                    stacklevel=2,
                )
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return (x - self.mean) / self.std


class _GELU(nn.Module):
    """GELU, in place where no gradient is recorded, so the tensor must not be shared."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


class ProjectionHead(nn.Module):
    """Two linear maps around BatchNorm and GELU, applied to each vector alone.

    A final LayerNorm puts embeddings on a sphere, where no Gaussian fits; batch statistics do not.

    Shapes: [..., D] -> [..., D].
    Source: LeWM, arXiv:2603.19312, Section 3; sizes of the released weights.
    """

    def __init__(self, dim: int, hidden_dim: int = 2048) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.gelu = _GELU()
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project each vector of [..., D]."""
        h = self.gelu(self.norm(self.expand(x.flatten(0, -2))))
        return self.contract(h).unflatten(0, x.shape[:-1])


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, h, T, d] of [B, T, 3 h d]."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


class Attention(nn.Module):
    """Multi-head self-attention whose heads may be wider than D / h: [B, T, D] -> [B, T, D]."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, *, bias: bool, causal: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=bias)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence of [B, T, D]."""
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(
            *split_heads(self.to_qkv(x), self.heads), is_causal=self.causal, dropout_p=dropout
        )
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)


def feed_forward(dim: int, hidden_dim: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear, GELU, linear, with dropout after each half."""
    expand, contract = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
    return nn.Sequential(expand, _GELU(), nn.Dropout(dropout), contract, nn.Dropout(dropout))


class ViTBlock(nn.Module):
    """Pre-norm transformer block of the Vision Transformer; causal for sequences in time.

    Raises: ValueError if heads do not divide `dim`.
    Source: Dosovitskiy et al., arXiv:2010.11929; eps of the published configuration.
    """

    def __init__(self, dim: int, heads: int, hidden_dim: int, *, causal: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads {heads}, got {dim}")
        self.norm1 = nn.LayerNorm(dim, eps=1e-12)
        self.attention = Attention(dim, heads, dim // heads, bias=True, causal=causal)
        self.norm2 = nn.LayerNorm(dim, eps=1e-12)
        self.mlp = feed_forward(dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def zeroed(layer: _ModuleT) -> _ModuleT:
    """Set the weights and biases of a layer to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def fold_modulation(modulation: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [6 D, D] and bias [6 D] that give 1 + scale in place of the scale."""
    bias = modulation.bias.unflatten(0, (6, -1)).clone()
    bias[1::3] += 1  # a slice: a list of indices is copied from the host at every call
    return modulation.weight, bias.flatten()


class AdaLNBlock(nn.Module):
    """Causal transformer block steered by a condition through AdaLN-zero.

        x ← x + g₁ · attention(norm((1 + s₁) · normalise(x) + b₁))
        x ← x + g₂ · mlp(norm((1 + s₂) · normalise(x) + b₂))

    Shift b, scale s and gate g are linear in the condition and start at zero, so a new block is the
    identity. The affine `norm` after the modulation is part of the released model.

    Source: Peebles & Xie, arXiv:2212.09748; LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(
        self, dim: int, heads: int, dim_head: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(dim, 6 * dim))
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dim_head, bias=False, causal=True, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, hidden_dim, dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Transform tokens [B, T, D] under a condition [B, T, D]."""
        folded = F.linear(F.silu(condition), *fold_modulation(self.modulation))
        return self.advance(x, folded.chunk(6, dim=-1), self.attention)

    def advance(
        self, x: Tensor, modulation: Sequence[Tensor], attend: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Transform tokens x [T, ..., D] with any attention, [T, ..., D] -> [n, ..., D].

        `modulation` is shift, 1 + scale and gate of attention, then of the MLP. n may be below T.
        """
        b1, s1, g1, b2, s2, g2 = modulation
        attended = attend(self.norm1(torch.addcmul(b1, s1, _normalise(x))))
        # shape[0], because len() would fix the number of sequences in an exported graph.
        last = attended.shape[0]
        if last < x.shape[0]:
            x, g1, b2, s2, g2 = (t[-last:] for t in (x, g1, b2, s2, g2))
        x = torch.addcmul(x, g1, attended)
        return torch.addcmul(x, g2, self.mlp(self.norm2(torch.addcmul(b2, s2, _normalise(x)))))


def _normalise(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)
