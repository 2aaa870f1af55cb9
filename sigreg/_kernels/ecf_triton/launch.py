"""The loss on the GPU: projections, sums, loss and weights, gradient of the projections, of z.

With k = p ± j, a sample adds the products of (cos pθ, sin pθ) with (1, cos jθ, sin jθ) for each of
two centres p, and its gradient is the same products weighted. More than 17 knots take one launch
per pair of centres.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sigreg._distributed import whereabouts
from sigreg._kernels.contract import Answer, Problem, flops, function_of, pull, save_gradients
from sigreg._kernels.ecf_triton.device import INTERPRET, card, launcher, on_device, options
from sigreg._kernels.ecf_triton.kernels import finish_kernel, pull_kernel, sums_kernel
from sigreg._kernels.ecf_triton.product import aligned, product
from sigreg.directions import Directions

_BLOCK_M = 32  # directions of a warp
_FINISH_M = 16  # directions of a program that finishes: few, for many programs
_WARPS = 8
_ROWS = 64 if INTERPRET else _WARPS  # samples a step; the interpreter pays per step
_MIN_SAMPLES = 64  # of a program, or its sums outweigh the projections they come from
_PROGRAMS_PER_SM = 3  # resident at a time: at most 80 registers for each of 256 threads


def loss(problem: Problem) -> Answer:
    """The answer to a problem: sums, one message between ranks, loss and weights, gradients."""
    with on_device(problem.z):
        return _loss(problem)


def _loss(problem: Problem) -> Answer:
    (groups, n, dim), like = problem.z.shape, problem.rule.weight
    z, directions, chunk = problem.z.reshape(groups * n, dim), problem.directions, problem.chunk
    num = len(directions.rows)
    blocks = directions.split(chunk or num)
    if directions.scale is not None and z.dtype != torch.float64 and card(z.device).bfloat16:
        z, blocks = aligned(z), [_aligned(block) for block in blocks]
    else:
        z, blocks = z.to(like), [block.to(like) for block in blocks]
    x, sums = z, []
    for block in blocks:
        x = _project(z, block, problem)
        sums.append(_sums(x, block, problem))
    sizes: Sequence[Tensor | None] = (None, None) if problem.shares is None else problem.own_sizes()
    if problem.group:
        ours, *sizes = problem.over_ranks(torch.cat([s.sum(1, keepdim=True) for s in sums], -1))
        sums = [s.contiguous() for s in ours.split([len(block.rows) for block in blocks], -1)]
    losses, grad_rows = [], []
    grad_z = x.new_empty(z.shape if problem.want_z else 0)
    for i, (block, part) in enumerate(zip(blocks, sums, strict=True)):
        known = min(num - i * chunk, chunk or num)  # the rest is padding
        found, weights = _finish(part, block, sizes, known, problem)
        losses.append(found)
        if not (problem.want_z or problem.want_rows):
            continue
        if len(blocks) > 1:
            x = _project(z, block, problem)
        pull = _pull(x, block, weights, problem).flatten(0, 1)
        if problem.want_z:
            _times(pull, block.rows, grad_z, add=i > 0)
        if problem.want_rows:
            grad_rows.append(pull.T @ z)
    if problem.want_z:
        grad_z = grad_z[:, :dim].reshape(problem.z.shape)
    return _whole(losses).sum(), grad_z, _whole(grad_rows) if grad_rows else x.new_empty(0)


def _whole(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _aligned(block: Directions) -> Directions:
    """The same, and zeros, so that D and M are multiples of 16."""
    rows, scale = aligned(block.rows, 16), block.scale
    assert scale is not None
    more = len(rows) - len(scale)
    return Directions(rows, torch.nn.functional.pad(scale, (0, more)) if more else scale)


def _times(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """a @ b into out, or added to it; on tensor cores where b is bfloat16."""
    if b.dtype == torch.bfloat16:
        return product(a, b, out, add=add)
    return out.addmm_(a, b, beta=int(add))


def _project(z: Tensor, block: Directions, problem: Problem) -> Tensor:
    """z @ rowsᵀ, [G, N, M]: their scale comes later."""
    num = len(block.rows)
    x = torch.empty(len(z), num, dtype=problem.rule.weight.dtype, device=z.device)
    return _times(z, block.rows.T, x).view(*problem.z.shape[:2], num)


def _sums(x: Tensor, block: Directions, problem: Problem) -> Tensor:
    """Sums of products of features of x [G, N, M]: [G, splits, 32·pairs, M]."""
    (groups, n, num), pairs = x.shape, _pairs(problem)
    if not n:
        return x.new_zeros(groups, 1, 32 * pairs, num)
    out = x.new_empty(groups, _splits(x)[0], 32 * pairs, num)
    _each_pair(sums_kernel, x, block, problem, out)
    return out


def _finish(
    sums: Tensor, block: Directions, sizes: Sequence[Tensor | None], known: int, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Parts of the loss, and the weights [G, pairs, 34, M] of its gradient."""
    (groups, splits, _, num), pairs, rule = sums.shape, _pairs(problem), problem.rule
    terms, (ranks, _) = groups * len(problem.directions.rows), whereabouts(problem.group)
    loss = sums.new_empty(groups * triton.cdiv(num, _FINISH_M))
    weights = sums.new_empty(groups, pairs, 34, num)
    launcher(finish_kernel, sums)[(len(loss),)](
        sums, *sizes, block.scale, rule.weight, rule.target, loss, weights,
        problem.z.shape[1], rule.weight.numel(), num, known, splits, pairs, terms, ranks,
        SPACING=problem.spacing, SCALE_BY_N=problem.scale_by_n, BLOCK_M=_FINISH_M,
        **options(sums, 4),
    )  # fmt: skip
    return loss, weights


def _pull(x: Tensor, block: Directions, weights: Tensor, problem: Problem) -> Tensor:
    """Gradient with respect to x [G, N, M], in its memory where one launch gives all of it."""
    if not x.shape[1]:
        return x
    out = torch.empty_like(x) if _pairs(problem) > 1 else x
    _each_pair(pull_kernel, x, block, problem, weights, out)
    return out


def _each_pair(
    kernel: Any, x: Tensor, block: Directions, problem: Problem, *tensors: Tensor
) -> None:
    """One launch for each pair of centres, with a program for each split of a block's samples."""
    (groups, n, num), pairs, (splits, samples) = x.shape, _pairs(problem), _splits(x)
    turns = problem.spacing / math.pi
    (high,) = struct.unpack("f", struct.pack("f", turns))  # and what float32 leaves of it
    for pair in range(pairs):
        launcher(kernel, x)[(groups * triton.cdiv(num, _BLOCK_M) * splits,)](
            x, block.scale, problem.shares, *tensors, n, num, samples, splits, pair, pairs,
            SPACING=problem.spacing, HIGH=high, LOW=turns - high, FIRST=pair == 0, ROWS=_ROWS,
            BLOCK_M=_BLOCK_M, **options(x, _WARPS),
        )  # fmt: skip


def _pairs(problem: Problem) -> int:
    """Pairs of centres, 16 knots each beside k = 0."""
    return max(1, -(-(problem.rule.weight.numel() - 1) // 16))


def _splits(x: Tensor) -> tuple[int, int]:
    """Into how many parts the samples of x go, and their size: as many programs as are resident."""
    groups, n, num = x.shape
    blocks = groups * triton.cdiv(num, _BLOCK_M)
    splits = max(1, _PROGRAMS_PER_SM * card(x.device).processors // blocks)
    samples = triton.cdiv(n, min(splits, triton.cdiv(n, _MIN_SAMPLES)))
    samples = triton.cdiv(samples, _ROWS) * _ROWS
    return triton.cdiv(n, samples), samples


# An operator of its own: what other ranks add comes in a message, which no compiler sees through,
# and this one can be made only where triton is.
loss_triton_op: Any = torch.library.triton_op(
    "sigreg::loss_triton", function_of({"triton": loss}), mutates_args=()
)
loss_triton_op.register_autograd(pull, setup_context=save_gradients)
register_flop_formula([torch.ops.sigreg.loss, torch.ops.sigreg.loss_triton])(flops)
