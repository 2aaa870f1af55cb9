"""SIGReg as a function: project, sum, compare with a Gaussian, average; and a scale term."""

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sigreg import _arguments as require
from sigreg._distributed import Group, group_name, over_ranks
from sigreg._kernels.contract import Problem, finish
from sigreg._kernels.ops import choose_backend, fused_loss
from sigreg.directions import Directions
from sigreg.quadrature import Quadrature
from sigreg.reference import ecf_sums, full_precision

__all__ = ["scale_term", "sigreg_loss"]

_EPS = 1e-12  # added to the variance: at a single point the gradient is 0, not NaN


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
        mask: [..., N], true where a sample counts; N is their number, and an empty batch adds 0.
        sample_weight: [..., N], w_n, at least 0; None means 1. N is then the effective number (Σ
            w)² / Σ w², which keeps the floor of Gaussian samples.
        scale_by_n: False drops the factor N, as in LeWM's printed formula.
        group: ranks that share the N samples: a process group, one dimension of a device mesh,
            "auto" for the default group if there is one, None for this process. Each rank returns
            the loss of all samples, and the gradient of its own times the number of ranks, by which
            DDP and FSDP divide; NaN if ranks drew different `Directions`.
        backend: "auto", the device's fused kernel if the knots are equally spaced; "reference", the
            only one with a second derivative; "cpu"; "cpp", compiled at its first call; "triton".
        chunk: directions projected at a time, to bound memory; None: the kernel chooses.
    Returns: [], float32 (float64 for float64 z), also under autocast. Gaussian samples score the
        noise floor, not 0. A sample that is not finite makes it not finite.
    Raises: TypeError or ValueError on wrong types and shapes, no samples outside a group, a backend
        that cannot run, a group without this rank.
    Source: LeJEPA, arXiv:2511.08544, Section 4.
    """
    name = group_name(group)
    require.samples(z, at_least=0 if name else 1)
    require.kind("quadrature", quadrature, Quadrature)
    require.kind("scale_by_n", scale_by_n, bool)
    if not isinstance(directions, Directions):
        require.directions(directions, z)
        directions = Directions(directions)
    require.shares(mask, sample_weight, z)
    if chunk is not None:
        require.count("chunk", chunk)
    chosen = choose_backend(backend, z.device, quadrature)
    with torch.autocast(z.device.type, enabled=False):
        z, shares = _counted(z, mask, sample_weight)
        full = full_precision(z.new_empty(0))
        if directions.scale is None:
            directions = directions.to(full)
        elif directions.rows.requires_grad:
            directions = Directions(directions.unit().to(full))
        groups = math.prod(z.shape[:-2])  # not -1, which an empty shard leaves open
        grad = torch.is_grad_enabled()
        shares = None if shares is None else shares.reshape(groups, shares.shape[-1])
        wanted = grad and z.requires_grad, grad and directions.rows.requires_grad
        z, rule = z.reshape(groups, *z.shape[-2:]), quadrature.to(full)
        problem = Problem(z, directions, shares, rule, scale_by_n, chunk or 0, name, *wanted)
        return _four_lines(problem) if chosen == "reference" else fused_loss(problem, chosen)


def _four_lines(problem: Problem) -> Tensor:
    """The definition in plain torch; autograd computes the gradients."""
    rule, directions = problem.rule, problem.directions.to(problem.rule.weight)
    z = problem.z.to(rule.weight)

    def sums(z: Tensor, rows: Tensor, scale: Tensor | None) -> Tensor:
        x = z @ rows.T if scale is None else (z @ rows.T) * scale
        return torch.cat(ecf_sums(x, rule.t, problem.shares), -1)

    if problem.chunk:  # recomputed in the backward pass, to bound memory
        blocks = directions.split(problem.chunk)
        found = torch.cat([checkpoint(sums, z, *b, use_reentrant=False) for b in blocks], 1)
    else:
        found = sums(z, *directions)
    return finish(*problem.over_ranks(found), problem)[0]


def _counted(
    z: Tensor, mask: Tensor | None, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """z without masked samples, and the share of each sample in full precision."""
    full = full_precision(z.new_empty(0))
    shares = None if sample_weight is None else sample_weight.to(full)
    if mask is not None:
        mask = mask.bool()
        z = z.where(mask.unsqueeze(-1), 0)  # not ·0: a masked sample may be NaN
        shares = mask.to(full) if shares is None else shares.where(mask, 0)
    return z, shares


def scale_term(
    z: Tensor,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    group: Group = None,
) -> Tensor:
    """How far the coordinates' standard deviations fall below 1: a gradient near a collapse.

        mean_d max(0, 1 − std_d)

    It pushes a sample at distance δ from the mean outwards by about δ/σ, where σ < 1 is the
    standard deviation; the Epps-Pulley statistic pushes by about δ. Leading dims are averaged.

    Args:
        z: [..., N, D].
        mask: [..., N], true where a sample counts; a batch without any adds 0.
        sample_weight: [..., N], weight of each sample; None means 1.
        group: ranks that share the samples, as in `sigreg_loss`; costs two messages.
    Returns: [], float32 (float64 for float64 z).
    Raises: TypeError or ValueError as `sigreg_loss`.
    Source: VICReg, arXiv:2105.04906, equation 1, with the plain variance.
    """
    name = group_name(group)
    require.samples(z, at_least=0)
    require.shares(mask, sample_weight, z)
    with torch.autocast(z.device.type, enabled=False):
        z, shares = _counted(full_precision(z), mask, sample_weight)
        share = (z.new_ones(z.shape[:-1]) if shares is None else shares).unsqueeze(-1)
        first, total = over_ranks([(z.detach() * share).sum(-2), share.sum(-2)], None, name)
        some = total > 0
        n = torch.where(some, total, 1)
        # Over all ranks the gradient of the mean cancels in the sum below.
        centred = z - (first / n).unsqueeze(-2)
        (variance,) = over_ranks([(centred.square() * share).sum(-2)], None, name)
        hinge = (1 - (variance / n + _EPS).sqrt()).clamp(min=0)
        return (hinge * some).mean()
