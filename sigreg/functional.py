"""SIGReg as a function: project, sum, compare with a Gaussian, average."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sigreg import reference
from sigreg._arguments import (
    check_count,
    check_directions,
    check_samples,
    check_shares,
    full_precision,
)
from sigreg._distributed import group_name
from sigreg._kernels import choose_backend, loss_operator
from sigreg._kernels.contract import Problem, effective_size
from sigreg.directions import Directions
from sigreg.quadrature import Quadrature

if TYPE_CHECKING:
    from sigreg._distributed import Group

__all__ = ["sigreg_loss"]


def sigreg_loss(
    z: Tensor,
    directions: Tensor | Directions,
    quadrature: Quadrature,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    scale_by_n: bool = True,
    group: Group = None,
    backend: str = "auto",
    chunk: int | None = None,
) -> Tensor:
    """Mean Epps-Pulley statistic of z along the given directions.

        mean_m  N ∫ |φ̂_m(t) − e^{−t²/2}|² e^{−t²/2} dt
        φ̂_m(t) = Σ_n w_n exp(i t ⟨a_m, z_n⟩) / Σ_n w_n

    Args:
        z: [..., N, D]. Leading dims are separate batches, each tested alone.
        directions: [M, D], unit rows, which may require a gradient; or Directions.
        quadrature: Quadrature, K nodes.
        mask: [..., N], true where a sample counts. Others have no influence whatever they hold,
            and N is the number that count; a batch where none does adds 0.
        sample_weight: [..., N], w_n, not negative; None means 1. N is then the effective number
            (Σ w)² / Σ w², for which Gaussian samples score the same floor.
        scale_by_n: False drops the factor N, as in the formula LeWM prints.
        group: ranks that share the N samples: a process group, one dimension of a device mesh, or
            "auto" for the default group if there is one; None means this process. Each rank
            returns the loss of all samples, and the gradient of its own times the number of
            ranks, by which DDP and FSDP divide; NaN if ranks drew different `Directions`.
        backend: "auto", "reference", "cpu" or "triton". The last two have no second derivative.
        chunk: directions projected at a time, which bounds memory; None leaves it to the kernel.
    Returns: [], float32 (float64 for float64 z), whatever autocast says. Gaussian samples score
        the noise floor, not 0; a sample that is not finite makes it not finite.
    Raises: TypeError for z that is not floating, ValueError on disagreeing shapes, no samples
        outside a group, an unknown backend or one that cannot run, a group without this rank.
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    name = group_name(group)
    check_samples(z, at_least=0 if name else 1)
    if not isinstance(directions, Directions):
        directions = Directions(directions)
    check_directions(directions.rows, z)
    check_shares(mask, sample_weight, z)
    if chunk is not None:
        check_count("chunk", chunk)
    chosen = choose_backend(backend, z.device, quadrature)
    with torch.autocast(z.device.type, enabled=False):
        full = full_precision(z.new_empty(0))
        shares = None if sample_weight is None else sample_weight.to(full)
        if mask is not None:
            mask = mask.bool()
            z = z.where(mask.unsqueeze(-1), 0)  # not ·0: what is left out may be NaN
            shares = mask.to(full) if shares is None else shares.where(mask, 0)
        if directions.scale is None:
            directions = directions.to(full)
        elif directions.rows.requires_grad:
            directions = Directions(directions.unit().to(full))
        groups = math.prod(z.shape[:-2])  # not -1, which an empty shard leaves open
        grad = torch.is_grad_enabled()
        problem = Problem(
            z.reshape(groups, *z.shape[-2:]),
            directions,
            None if shares is None else shares.reshape(groups, shares.shape[-1]),
            quadrature.to(full),
            scale_by_n,
            chunk or 0,
            name,
            grad and z.requires_grad,
            grad and directions.rows.requires_grad,
        )
        if chosen == "reference":
            return _four_lines(problem)
        rule = problem.rule
        assert rule.spacing is not None
        loss: Tensor = loss_operator(chosen, name)(
            problem.z,
            *directions,
            problem.shares,
            rule.weight,
            rule.target,
            rule.spacing,
            scale_by_n,
            problem.chunk,
            chosen,
            name,
            problem.want_z,
            problem.want_rows,
        )[0]
        return loss


def _four_lines(problem: Problem) -> Tensor:
    """The definition, with gradients left to autograd."""
    rule, directions = problem.rule, problem.directions.to(problem.rule.weight)
    z = problem.z.to(rule.weight)

    def sums(z: Tensor, rows: Tensor, scale: Tensor | None) -> Tensor:
        x = z @ rows.T if scale is None else (z @ rows.T) * scale
        return torch.cat(reference.ecf_sums(x, rule.t, problem.shares), -1)

    if problem.chunk:  # recomputed in the backward pass, or nothing would be bounded
        parts = [
            checkpoint(sums, z, *block, use_reentrant=False)
            for block in directions.split(problem.chunk)
        ]
        found = torch.cat(parts, 1)
    else:
        found = sums(z, *directions)
    found, total, squares = problem.over_ranks(found)
    divisor, n = effective_size(total[:, None], squares[:, None], problem.scale_by_n)
    cos, sin = (found / divisor[..., None]).chunk(2, -1)
    return reference.epps_pulley(cos, sin, n, rule).mean()
