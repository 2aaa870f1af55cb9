"""DINO-WM's parts: a frozen encoder that keeps every patch, and a predictor over all of them.

An embedding is the patches of a frame side by side, D = P · d, so all code for embeddings [B, T, D]
works. Letters: P patches of d dims, n sequences, w token width.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel._extras import need
from worldmodel.layers import Pixels, check_history, feed_forward, given, split_heads

__all__ = ["DinoPatches", "PatchPredictor"]

_Seen = list[list[tuple[Tensor, Tensor]]]  # by block, keys and values of each frame of a window
_ARCHITECTURE = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "num_channels", "qkv_bias", "layerscale_value",
    "use_swiglu_ffn",
)  # fmt: skip


@checked()
class DinoPatches(nn.Module):
    """DINOv2's patch tokens after the last norm, frozen.

    Use `from_folder`; this constructor draws random weights, which `load` then replaces.

    Args:
        architecture: of `transformers.Dinov2Config`.
        image_size: side to which frames are resized, a multiple of the patch; 196 as published.
    Shapes: frames [..., 3, H, W], uint8 in 0…255 or floating point in 0…1 -> [..., P · d].
    Raises: ImportError without transformers; ValueError for sizes or frames of another shape.
    Source: DINO-WM, arXiv:2411.04983, Section 3; DINOv2, arXiv:2304.07193.
    """

    def __init__(self, architecture: dict[str, Any], image_size: int = 196) -> None:
        super().__init__()
        self.config = given(locals()) | {"architecture": dict(architecture)}
        library = need("transformers", "dino", "DINOv2")
        self.backbone = library.Dinov2Model(library.Dinov2Config(**architecture))
        patch = int(architecture["patch_size"])
        if image_size < patch or image_size % patch:
            raise ValueError(f"image_size must be a multiple of {patch}, got {image_size}")
        self.image_size = image_size
        self.tokens, self.token_dim = (image_size // patch) ** 2, int(architecture["hidden_size"])
        self.dim = self.tokens * self.token_dim
        self.pixels = Pixels(image_size, resize=True)
        self.requires_grad_(False)
        self.train(False)

    @classmethod
    def from_folder(cls, folder: str | Path, *, image_size: int = 196) -> "DinoPatches":
        """Weights as `transformers` saves them: config.json beside model.safetensors.

        Nothing is downloaded. `facebook/dinov2-small` is the published encoder.

        Raises: FileNotFoundError if a file is missing; ValueError if it is of another model.
        """
        path = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise FileNotFoundError(f"{path / name} is missing: give a folder of DINOv2")
        library = need("transformers", "dino", "DINOv2")
        settings = library.AutoConfig.from_pretrained(str(path), local_files_only=True)
        if settings.model_type != "dinov2":
            raise ValueError(f"{path} must hold a dinov2 model, got {settings.model_type}")
        backbone, found = library.Dinov2Model.from_pretrained(
            str(path), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{path} lacks {len(missing)} tensors: {', '.join(missing[:3])}")
        with torch.random.fork_rng(devices=[]):
            out = cls({name: getattr(settings, name) for name in _ARCHITECTURE}, image_size)
        out.backbone.load_state_dict(backbone.state_dict())
        return out

    def train(self, mode: bool = True) -> "DinoPatches":
        """Stay in evaluation mode: the encoder is frozen."""
        del mode
        return super().train(False)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames [..., 3, H, W], each alone: [..., P · d]."""
        x = self.pixels(frames)
        with torch.no_grad():
            tokens = self.backbone(pixel_values=x).last_hidden_state
        return tokens[:, 1:].flatten(1).unflatten(0, frames.shape[:-3])


class _PatchBlock(nn.Module):
    """Pre-norm transformer block that processes a sequence frame by frame."""

    def __init__(self, dim: int, heads: int, dim_head: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, mlp_dim, dropout)

    def extend(self, x: Tensor, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Transform one more frame [n, P, w], which attends to itself and the frames in `seen`."""
        q, k, v = split_heads(self.to_qkv(self.norm1(x)), self.heads)
        seen.append((k, v))
        keys, values = (torch.cat(part, dim=2) for part in zip(*seen, strict=True))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, keys, values, dropout_p=dropout)
        mixed = self.to_out(mixed.transpose(1, 2).flatten(2))
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + self.mlp(self.norm2(x))


@checked(dropout="[0, 1)")
class PatchPredictor(nn.Module):
    """Transformer over the patches of a short history; patches attend to their own and past frames.

    The encoded action is appended to every patch of its frame, so a token is d + a wide; the first
    d outputs are the predicted patch. Frames are processed in order, each attending to the keys of
    those before. The defaults are published, for ViT-S/14 at 196 px.

    Args:
        token_dim, tokens, action_width: d, P and a.
        depth, heads, dim_head, mlp_dim: blocks, heads of each, their width, hidden width.
        history: the largest number of frames in a window.
        dropout: in attention and MLP.
    Shapes: embeddings [B, T, P · d], actions [B, T, a] (encoded), T ≤ history -> [B, T, P · d].
    Raises: ValueError if T exceeds `history` or shapes disagree.
    Source: DINO-WM, arXiv:2411.04983, Section 3 and released configuration.
    """

    def __init__(
        self,
        token_dim: int = 384,
        tokens: int = 196,
        action_width: int = 10,
        depth: int = 6,
        heads: int = 16,
        history: int = 3,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.token_dim, self.tokens, self.action_width = token_dim, tokens, action_width
        self.dim, self.history, self.dropout = token_dim * tokens, history, dropout
        width = token_dim + action_width
        self.positions = nn.Parameter(torch.randn(history, tokens, width))
        blocks = (_PatchBlock(width, heads, dim_head, mlp_dim, dropout) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    @checked(embeddings="B T dim", actions="B T action_width")
    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, P · d] and encoded actions [B, T, a]."""
        check_history(embeddings, self.history)
        seen: _Seen = [[] for _ in self.blocks]
        pairs = zip(embeddings.unbind(1), actions.unbind(1), strict=True)
        return torch.stack([self._extend(z, a, t, seen) for t, (z, a) in enumerate(pairs)], dim=1)

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, P · d] and encoded actions [n, T − 1 + H, a]: [n, H, P · d].

        It reuses keys and values while the window grows; once it slides, all positions change.
        """
        frames, known = list(z.unbind(1)), z.shape[1]
        start = done = -1
        for end in range(known, actions.shape[1] + 1):
            first = max(0, end - self.history)
            if first != start:
                start = done = first
                seen: _Seen = [[] for _ in self.blocks]
            for t in range(done, end):
                following = self._extend(frames[t], actions[:, t], t - start, seen)
            frames.append(following)
            done = end
        return torch.stack(frames[known:], dim=1)

    def _extend(self, z: Tensor, action: Tensor, place: int, seen: _Seen) -> Tensor:
        """Process the frame at a position of the window, extending `seen`: the next embedding."""
        beside = action.unsqueeze(1).expand(-1, self.tokens, -1)
        x = torch.cat([z.unflatten(1, (self.tokens, -1)), beside], dim=-1) + self.positions[place]
        x = F.dropout(x, self.dropout, self.training)
        for block, cache in zip(self.blocks, seen, strict=True):
            x = block.extend(x, cache)  # type: ignore[operator]
        return self.norm(x)[..., : self.token_dim].flatten(1)
