"""Models at published sizes, each with its source and expected results.

Each returns fresh weights in training mode. A is raw action dims × frameskip.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from worldmodel._arguments import checked
from worldmodel.encoder import ActionEncoder, ConvEncoder, FusedEncoder, StateEncoder, ViTEncoder
from worldmodel.gcbc import GCBC
from worldmodel.model import WorldModel
from worldmodel.patches import DinoPatches, PatchPredictor
from worldmodel.predictor import CausalPredictor, MLPPredictor

__all__ = ["dino_wm", "gcbc", "lewm", "mlp", "small", "states"]


@checked()
def lewm(action_dim: int = 10, *, image_size: int = 224, history: int = 3) -> WorldModel:
    """LeWorldModel as released: 18,034,478 parameters with ten action dims, 18,034,628 with 25.

    ViT-Tiny encoder (5,501,376), AdaLN-zero predictor (10,791,360), action encoder (156,206) and
    two projection heads (792,768 each). Published success: 87 on Two-Room, 86 on Reacher, 96 on
    Push-T, 74 on Cube, after 10 epochs on one L40S. Not yet trained to the end with this code.

    Args:
        action_dim: A (2 × 5 for Two-Room, Push-T and Reacher, 5 × 5 for Cube).
        image_size, history: frame side, a multiple of 14; frames the predictor looks back on.
    Returns: WorldModel.
    Source: LeWM, arXiv:2603.19312, Section 3, Figure 6 and released configuration.
    """
    return WorldModel(
        encoder=ViTEncoder(image_size=image_size, patch_size=14, dim=192),
        action_encoder=ActionEncoder(action_dim=action_dim, dim=192, mix_dim=10),
        predictor=CausalPredictor(dim=192, depth=6, heads=16, history=history),
    )


@checked()
def small(
    action_dim: int = 10,
    *,
    image_size: int = 64,
    dim: int = 64,
    observations: Mapping[str, int | tuple[int, ...]] | None = None,
) -> WorldModel:
    """A convolutional encoder and a two-block predictor, trained in minutes on two CPU cores.

    It is the model of `worldmodel demo`; the README has its measured success.

    Args:
        action_dim, dim: A and D.
        image_size: frame side in pixels, a power of two.
        observations: several, by name, in place of one picture: the side of a picture for a name
            that begins with "pixels" ({"pixels": 64, "pixels_wrist": 64}), (3, side, side) for one
            under another name, a width for a vector ({"proprio": 5}).
    Returns: WorldModel.
    """
    encoder: nn.Module = ConvEncoder(image_size=image_size, dim=dim)
    if observations is not None:
        parts = {name: _small_encoder(name, size, dim) for name, size in observations.items()}
        encoder = FusedEncoder(parts, dim)
    return _small(encoder, action_dim, dim)


@checked()
def mlp(action_dim: int = 10, *, image_size: int = 64, dim: int = 128) -> WorldModel:
    """Larger maps than `small`, and an MLP as predictor: for contact-rich worlds on a CPU.

    Args:
        action_dim, dim: A and D.
        image_size: frame side in pixels, a power of two.
    Returns: WorldModel, whose windows have up to six frames.
    """
    return WorldModel(
        encoder=ConvEncoder(image_size, 2, 16, dim, projector_dim=512, side=8),
        action_encoder=ActionEncoder(action_dim=action_dim, dim=dim, hidden_dim=256),
        predictor=MLPPredictor(dim=dim),
    )


@checked()
def states(action_dim: int = 10, *, state_dim: int, dim: int = 64) -> WorldModel:
    """A world model on state vectors, without pixels: `small` with a `StateEncoder`.

    Args:
        action_dim, state_dim, dim: A, numbers in a state Q, and D.
    Returns: WorldModel; observations are [B, T, Q].
    """
    return _small(StateEncoder(state_dim, dim), action_dim, dim)


def _small(encoder: Any, action_dim: int, dim: int) -> WorldModel:
    return WorldModel(
        encoder=encoder,
        action_encoder=ActionEncoder(action_dim=action_dim, dim=dim, hidden_dim=128),
        predictor=CausalPredictor(
            dim=dim, depth=2, heads=4, history=3, dim_head=32, mlp_dim=256, projector_dim=256
        ),
    )


def _small_encoder(name: str, size: int | tuple[int, ...], dim: int) -> nn.Module:
    shape = (size,) if isinstance(size, int) else tuple(size)
    if len(shape) == 1 and not name.startswith("pixels"):
        return StateEncoder(shape[0], dim)
    if len(shape) == 1 or shape == (3, shape[-1], shape[-1]):
        return ConvEncoder(image_size=shape[-1], dim=dim)
    raise ValueError(
        f"observations must give {name!r} as a width, the side of a picture, or (3, side, side), "
        f"got {size}"
    )


@checked()
def dino_wm(encoder: DinoPatches, action_dim: int = 10, *, history: int = 3) -> WorldModel:
    """DINO-WM: a frozen DINOv2 and a predictor over all its patches, at the published sizes.

    Train it by `jepa_loss` with weight 0: a frozen encoder cannot collapse. Published: 100 epochs,
    batch 32, learning rate 5e-4; success 92 on Push-T with proprioception, 74 without (LeWM,
    arXiv:2603.19312). The original has one linear map of actions. Not yet trained to the end.

    Args:
        encoder: `DinoPatches.from_folder("dinov2-small")`, 196 patches of 384.
        action_dim, history: A, and frames the predictor looks back on.
    Returns: WorldModel.
    Source: DINO-WM, arXiv:2411.04983, Section 3 and released configuration.
    """
    return WorldModel(
        encoder=encoder,
        action_encoder=ActionEncoder(action_dim=action_dim, dim=10),
        predictor=PatchPredictor(
            token_dim=encoder.token_dim, tokens=encoder.tokens, action_width=10, history=history
        ),
    )


@checked()
def gcbc(action_dim: int = 2, *, image_size: int = 224, history: int = 3) -> GCBC:
    """Goal-conditioned behaviour cloning with LeWM's encoder and a trunk of six blocks.

    The published baseline has a frozen DINOv2-S in front of its six layers, batch 128, learning
    rate 1e-4, 100 epochs and frameskip 1: success 75 on Push-T, 84 on Cube and 100 on Two-Room
    (LeWM, arXiv:2603.19312). Not yet trained to the end with this code.

    Args:
        action_dim, history: A, and frames the policy looks back on.
        image_size: frame side in pixels, a multiple of 14.
    Returns: GCBC.
    Source: LeWM, arXiv:2603.19312, Section 4 (baselines).
    """
    return GCBC(
        ViTEncoder(image_size=image_size, patch_size=14, dim=192),
        CausalPredictor(dim=192, depth=6, heads=16, history=history),
        action_dim,
    )
