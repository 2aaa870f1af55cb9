"""SIGReg as a function: project, sum, compare with a Gaussian, average."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sigreg import reference
from sigreg._distributed import differentiable_sum_over_ranks, group_name
from sigreg._kernels import choose_backend, ecf_sums, loss_op
from sigreg.quadrature import Quadrature

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["check_samples", "sigreg_loss"]


def sigreg_loss(
    z: Tensor,
    directions: Tensor,
    quadrature: Quadrature,
    *,
    mask: Tensor | None = None,
    scale_by_n: bool = True,
    group: ProcessGroup | Literal["auto", False] | None = None,
    backend: str = "auto",
    chunk: int | None = None,
) -> Tensor:
    """Mean Epps-Pulley statistic of z along the given directions.

        mean_m  N ∫ |φ̂_m(t) − e^{−t²/2}|² e^{−t²/2} dt
        φ̂_m(t) = mean_n exp(i t ⟨a_m, z_n⟩)

    Args:
        z: [..., N, D]. Leading dims are separate batches, each tested alone.
        directions: [M, D], unit rows.
        quadrature: Quadrature, K nodes.
        mask: [..., N], true where a sample counts. Others have no influence whatever they hold,
            and N is the number that count; a batch where none does adds 0.
        scale_by_n: False drops the factor N, as in the formula LeWM prints.
        group: ranks that share the N samples, "auto" for the default group if there is one; None
            and False mean this process. Each rank returns the loss of all samples, and the
            gradient of its own times the number of ranks, by which DDP and FSDP divide.
        backend: "auto", "reference", "cpu" or "triton". The last two have no second derivative.
        chunk: directions projected at a time, which bounds memory; None leaves it to the kernel.
    Returns: [], float32 (float64 for float64 z), whatever autocast says. Gaussian samples score
        the noise floor, not 0; a sample that is not finite makes it not finite.
    Raises: TypeError for z that is not floating, ValueError on disagreeing shapes, no samples
        outside a group, an unknown backend or one that cannot run.
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    name = group_name(group)
    check_samples(z)
    _check(z, directions, mask, chunk, alone=not name)
    chosen = choose_backend(backend, z.device, quadrature)
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        directions = directions.to(z)
        rule = quadrature.to(z)
        if mask is not None:
            mask = mask.bool()
            z = z.where(mask.unsqueeze(-1), 0)  # not ·0: what is left out may be NaN
        if chosen == "reference" or directions.requires_grad:
            return _four_lines(z, directions, rule, mask, scale_by_n, name, chosen)
        assert rule.spacing is not None
        groups = math.prod(z.shape[:-2])  # not -1, which an empty shard leaves open
        loss: Tensor = loss_op(
            z.reshape(groups, *z.shape[-2:]),
            directions,
            None if mask is None else mask.reshape(groups, mask.shape[-1]).to(z.dtype),
            rule.weight,
            rule.target,
            rule.spacing,
            scale_by_n,
            chunk or 0,
            chosen,
            name,
            torch.is_grad_enabled() and z.requires_grad,
        )[0]
        return loss


def _four_lines(
    z: Tensor,
    directions: Tensor,
    rule: Quadrature,
    mask: Tensor | None,
    scale_by_n: bool,
    name: str,
    backend: str,
) -> Tensor:
    """The definition, with gradients left to autograd."""
    n = z.new_full(z.shape[:-2], z.shape[-2]) if mask is None else mask.sum(-1).to(z.dtype)
    cos, sin = ecf_sums(z @ directions.T, rule, mask, backend=backend)
    packed = torch.cat((cos.flatten(-2), sin.flatten(-2), n.unsqueeze(-1)), -1)
    packed = differentiable_sum_over_ranks(packed, name)
    sums, n = packed[..., :-1], packed[..., -1:]
    cos, sin = (half.view_as(cos) for half in sums.chunk(2, -1))
    m = n.clamp(min=1).unsqueeze(-1)
    return reference.epps_pulley(cos / m, sin / m, n if scale_by_n else n.sign(), rule).mean()


def check_samples(z: Tensor) -> None:
    """Raises: TypeError or ValueError unless z is a floating tensor [..., N, D] with D > 0."""
    if not isinstance(z, Tensor):
        raise TypeError(f"z must be a torch.Tensor, got {type(z).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"z must be floating point, got {z.dtype}")
    if z.ndim < 2 or z.shape[-1] == 0 or 0 in z.shape[:-2]:
        raise ValueError(f"z must be [..., N, D] with D > 0 and no empty lead, got {list(z.shape)}")


def _check(
    z: Tensor, directions: Tensor, mask: Tensor | None, chunk: int | None, *, alone: bool
) -> None:
    if alone and z.shape[-2] == 0:
        raise ValueError(f"z must hold samples outside a process group, got {list(z.shape)}")
    dim = z.shape[-1]
    if directions.ndim != 2 or directions.shape[1] != dim or directions.shape[0] == 0:
        raise ValueError(
            f"directions must be [M, {dim}] to match z [..., {dim}], got {list(directions.shape)}"
        )
    if mask is not None and mask.shape != z.shape[:-1]:
        raise ValueError(
            f"mask must be {list(z.shape[:-1])} to match z {list(z.shape)}, got {list(mask.shape)}"
        )
    if mask is not None and mask.is_floating_point():
        raise TypeError(f"mask must be boolean, got {mask.dtype}: samples count or do not")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
