"""Encoders: observations, or a block of actions, to one vector.

Letters: B windows, T frames, C H W a frame, A action dims of one block, D embedding dims.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.layers import Pixels, ProjectionHead, ViTBlock, given, in_parts

__all__ = ["ActionEncoder", "ConvEncoder", "FusedEncoder", "StateEncoder", "ViTEncoder"]


@checked()
class ViTEncoder(nn.Module):
    """Vision Transformer: the class token after the last norm, then a projection head.

    The defaults are ViT-Tiny as published: 5,501,376 parameters, and 792,768 in the head.

    Args:
        image_size, patch_size: H = W, and side of a patch, which divides it, in pixels.
        dim: D, token width and embedding width.
        depth, heads: blocks, and heads of each, which divide `dim`.
        mlp_dim, projector_dim: hidden width of a block, None is 4 × dim, and of the head.
    Shapes: frames [..., 3, H, W], uint8 in 0…255 or floating point in 0…1 -> [..., D].
    Raises: ValueError for sizes or frames of another shape; TypeError for frames of another dtype.
    Source: LeWM, arXiv:2603.19312, Section 3 and released configuration.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 14,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_dim: int | None = None,
        projector_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.config = given(locals())
        if image_size % patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size {patch_size}, got {image_size}"
            )
        self.image_size, self.dim, self.parts = image_size, dim, 1
        self.pixels = Pixels(image_size)
        self.patches = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(ViTBlock(dim, heads, mlp_dim or 4 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.projector = ProjectionHead(dim, projector_dim)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for part in (self.patches, *self.blocks.modules()):
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames [..., 3, H, W], each alone: [..., D]."""
        # The head has batch statistics, so it sees all frames at once.
        z = self.projector(in_parts(self._features, frames, self.parts))
        return z.unflatten(0, frames.shape[:-3])

    def _features(self, frames: Tensor) -> Tensor:
        tokens = self.patches(self.pixels(frames)).flatten(2).transpose(1, 2)
        # shape[0], because len() would fix the number of frames in an exported graph.
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


@checked()
class ConvEncoder(nn.Module):
    """Strided convolutions, then a projection head: for small worlds on a CPU.

    The first layer cuts the frame into patches. Each further layer halves the side down to `side`.

    Args:
        image_size, patch_size: H = W, a power of two times the side of the first layer's patches.
        width: channels after the first layer; they double with every halving, up to 4 × width.
        dim, projector_dim: D, and hidden width of the projection head.
        side: of the last layer's map; a larger one tells positions more exactly.
    Shapes: frames [..., 3, H, W], uint8 in 0…255 or floating point in 0…1 -> [..., D].
    Raises: as ViTEncoder.
    """

    def __init__(
        self,
        image_size: int = 64,
        patch_size: int = 4,
        width: int = 32,
        dim: int = 64,
        projector_dim: int = 256,
        side: int = 4,
    ) -> None:
        super().__init__()
        self.config, least = given(locals()), side
        side, rest = divmod(image_size, patch_size)
        if rest or side & (side - 1):
            raise ValueError(
                f"image_size must be a power of two times patch_size {patch_size}, got {image_size}"
            )
        self.image_size, self.dim, self.parts = image_size, dim, 1
        self.pixels = Pixels(image_size)
        layers: list[nn.Module] = [nn.Conv2d(3, width, patch_size, stride=patch_size), nn.GELU()]
        channels = width
        while side > least:
            wider = min(2 * channels, 4 * width)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GELU()]
            channels, side = wider, side // 2
        self.features = nn.Sequential(*layers)
        self.embed = nn.Linear(channels * side * side, dim)
        self.projector = ProjectionHead(dim, projector_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames [..., 3, H, W], each alone: [..., D]."""
        h = in_parts(self._features, frames, self.parts)
        return self.projector(h).unflatten(0, frames.shape[:-3])

    def _features(self, frames: Tensor) -> Tensor:
        h = self.features(self.pixels(frames).contiguous(memory_format=torch.channels_last))
        return self.embed(h.flatten(1))


@checked()
class StateEncoder(nn.Module):
    """A vector (proprioception, a state) to an embedding: a small MLP, then a projection head.

    Batch statistics standardise the input, so raw units may differ by orders of magnitude.

    Args:
        state_dim, dim: Q and D.
        hidden_dim, projector_dim: hidden width, and hidden width of the projection head.
    Shapes: floating point [..., Q] -> [..., D].
    Raises: ValueError if the last dimension is not Q.
    """

    def __init__(
        self, state_dim: int, dim: int = 64, hidden_dim: int = 256, projector_dim: int = 256
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.state_dim, self.dim = state_dim, dim
        self.standardise = nn.BatchNorm1d(state_dim, affine=False)
        self.expand = nn.Linear(state_dim, hidden_dim)
        self.embed = nn.Linear(hidden_dim, dim)
        self.projector = ProjectionHead(dim, projector_dim)

    @checked(states="any * state_dim")
    def forward(self, states: Tensor) -> Tensor:
        """Embed vectors [..., Q]: [..., D]."""
        x = states.flatten(0, -2).to(self.expand.weight.dtype)
        h = self.embed(F.gelu(self.expand(self.standardise(x))))
        return self.projector(h).unflatten(0, states.shape[:-1])


@checked()
class FusedEncoder(nn.Module):
    """Several observations to one embedding: an encoder for each, a linear map, a projection head.

    Args:
        encoders: by the observation's name, each with `dim`; at least one.
        dim, projector_dim: D, and hidden width of the projection head.
    Shapes: a mapping of tensors [B, T, ...], of these names -> [B, T, D].
    Raises: ValueError if no encoder is given, or observations have other names.
    """

    def __init__(
        self, encoders: Mapping[str, Any], dim: int = 64, projector_dim: int = 256
    ) -> None:
        super().__init__()
        self.config = given(locals()) | {"encoders": dict(encoders)}
        if not encoders:
            raise ValueError("encoders must name at least one observation, got none")
        self.dim, self.names = dim, list(encoders)
        # A list: names of cameras hold dots, which names of modules may not.
        self.encoders = nn.ModuleList(encoders.values())
        self.mix = nn.Linear(sum(e.dim for e in encoders.values()), dim)
        self.projector = ProjectionHead(dim, projector_dim)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Embed observations, each frame alone: [B, T, D]."""
        got = sorted(observations) if isinstance(observations, Mapping) else "a tensor"
        if got != sorted(self.names):
            raise ValueError(f"observations must be a mapping of {sorted(self.names)}, got {got}")
        parts = zip(self.names, self.encoders, strict=True)
        seen = [encoder(observations[name]) for name, encoder in parts]
        return self.projector(self.mix(torch.cat(seen, dim=-1)))


@checked()
class ActionEncoder(nn.Module):
    """A block of actions to one vector: a linear mix, then an MLP with SiLU.

    Args:
        action_dim, dim: A, raw action dims × frameskip, and D.
        hidden_dim: hidden width; None means 4 × dim.
        mix_dim: width of the linear mix; None means A. The released models all have 10.
    Shapes: [..., A] -> [..., D].
    Raises: ValueError if the last dimension is not A; TypeError if actions are not floating point.
    Source: LeWM, arXiv:2603.19312, released configuration (the mix is a convolution of width one).
    """

    def __init__(
        self, action_dim: int, dim: int, hidden_dim: int | None = None, mix_dim: int | None = None
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.action_dim, self.dim = action_dim, dim
        self.mix = nn.Linear(action_dim, mix_dim or action_dim)
        self.expand = nn.Linear(mix_dim or action_dim, hidden_dim or 4 * dim)
        self.contract = nn.Linear(hidden_dim or 4 * dim, dim)

    @checked(actions="* action_dim")
    def forward(self, actions: Tensor) -> Tensor:
        """Embed blocks of actions [..., A]: [..., D]."""
        actions = actions.to(self.mix.weight.dtype)
        return self.contract(F.silu(self.expand(self.mix(actions))))
