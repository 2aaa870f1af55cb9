"""The launches: projections, sums, loss and weights, gradients of projections and z; draws.

With k = p ± j, a sample adds the products of (cos pθ, sin pθ) with (1, cos jθ, sin jθ) for two
centres p; its gradient is the same products, weighted. Each pair of centres takes a launch.
"""

import contextlib
import functools
import math
import os
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sigreg._distributed import whereabouts
from sigreg._kernels.contract import Answer, Problem, flops, operator_of
from sigreg._kernels.ecf_triton import kernels
from sigreg.directions import GRID, HASH, Directions, hash_start, quantiles

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"
_BLOCK_M = 32  # directions of a warp
_FINISH_M = 16  # directions of a program that finishes: few, for many programs
_WARPS = 8
_ROWS = 64 if INTERPRET else _WARPS  # samples a step; the interpreter pays per step
_MIN_SAMPLES = 64  # of a program, or its sums outweigh the projections they come from
_PROGRAMS_PER_SM = 3  # resident at a time: at most 80 registers for each of 256 threads
# How many bfloat16 numbers add up to one of these: 8 bits of the significand each.
_PARTS = {torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}
_LARGE = 200 << 10  # bytes of shared memory of the cards whose registers hold steps of 64


class Card(NamedTuple):
    """What launches depend on."""

    processors: int
    shared_memory: int  #: bytes that one program may have
    bfloat16: bool  #: whether its tensor cores are known to multiply them: NVIDIA's from Ampere on


@functools.cache
def card(device: torch.device) -> Card:
    """The properties of a device; the CPU gets those of the interpreter."""
    if device.type != "cuda":
        return Card(1, 0, True)
    driver = triton.runtime.driver.active
    properties = driver.utils.get_device_properties(device.index)
    target = driver.get_current_target()
    bfloat16 = target.backend == "cuda" and target.arch >= 80
    return Card(properties["multiprocessor_count"], properties["max_shared_mem"], bfloat16)


def on_device(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the tensor's GPU, whichever is current; on a CPU only the interpreter runs."""
    if like.is_cuda:
        return torch.cuda.device(like.device)
    if not INTERPRET:
        raise ValueError(
            f"backend='triton' needs a tensor on a GPU, got one on {like.device}; "
            "TRITON_INTERPRET=1 in the environment runs the kernels on the CPU, slowly, for tests"
        )
    return contextlib.nullcontext()


def _launch(kernel: Any, programs: int, *arguments: Any, warps: int, **constants: Any) -> None:
    """Start programs; only an explicit fma fuses a product and a sum."""
    constants |= {"num_warps": warps, "num_stages": 3}
    if type(arguments[0]) is Tensor:
        kernel[(programs,)](*arguments, enable_fp_fusion=False, **constants)
    else:  # A compiler records the launch, which takes no such option.
        torch.library.wrap_triton(kernel)[(programs,)](*arguments, **constants)


def loss(problem: Problem) -> Answer:
    """Answer a problem: sums, one message between ranks, loss and weights, gradients."""
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
    """The same directions, padded with zeros so that D and M are multiples of 16."""
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
    """z @ rowsᵀ, [G, N, M], without the scale of the rows."""
    num = len(block.rows)
    x = torch.empty(len(z), num, dtype=problem.rule.weight.dtype, device=z.device)
    return _times(z, block.rows.T, x).view(*problem.z.shape[:2], num)


def _sums(x: Tensor, block: Directions, problem: Problem) -> Tensor:
    """Sums of products of features of x [G, N, M]: [G, splits, 32·pairs, M]."""
    (groups, n, num), pairs = x.shape, _pairs(problem)
    if not n:
        return x.new_zeros(groups, 1, 32 * pairs, num)
    out = x.new_empty(groups, _splits(x)[0], 32 * pairs, num)
    _each_pair(kernels.sums_kernel, x, block, problem, out)
    return out


def _finish(
    sums: Tensor, block: Directions, sizes: Sequence[Tensor | None], known: int, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Parts of the loss, and the weights [G, pairs, 34, M] of its gradient."""
    (groups, splits, _, num), pairs, rule = sums.shape, _pairs(problem), problem.rule
    terms, (ranks, _) = groups * len(problem.directions.rows), whereabouts(problem.group)
    loss = sums.new_empty(groups * triton.cdiv(num, _FINISH_M))
    weights = sums.new_empty(groups, pairs, 34, num)
    _launch(
        kernels.finish_kernel, len(loss),
        sums, *sizes, block.scale, rule.weight, rule.target, loss, weights,
        problem.z.shape[1], rule.weight.numel(), num, known, splits, pairs, terms, ranks,
        SPACING=problem.spacing, SCALE_BY_N=problem.scale_by_n, BLOCK_M=_FINISH_M, warps=4,
    )  # fmt: skip
    return loss, weights


def _pull(x: Tensor, block: Directions, weights: Tensor, problem: Problem) -> Tensor:
    """Gradient with respect to x [G, N, M], in place where one launch computes all of it."""
    if not x.shape[1]:
        return x
    out = torch.empty_like(x) if _pairs(problem) > 1 else x
    _each_pair(kernels.pull_kernel, x, block, problem, weights, out)
    return out


def _each_pair(
    kernel: Any, x: Tensor, block: Directions, problem: Problem, *tensors: Tensor
) -> None:
    """One launch for each pair of centres, with a program for each split of a block's samples."""
    (groups, n, num), pairs, (splits, samples) = x.shape, _pairs(problem), _splits(x)
    turns = problem.spacing / math.pi
    (high,) = struct.unpack("f", struct.pack("f", turns))  # and what float32 leaves of it
    for pair in range(pairs):
        _launch(
            kernel, groups * triton.cdiv(num, _BLOCK_M) * splits,
            x, block.scale, problem.shares, *tensors, n, num, samples, splits, pair, pairs,
            SPACING=problem.spacing, HIGH=high, LOW=turns - high, FIRST=pair == 0, ROWS=_ROWS,
            BLOCK_M=_BLOCK_M, warps=_WARPS,
        )  # fmt: skip


def _pairs(problem: Problem) -> int:
    """Pairs of centres, 16 knots each beside k = 0."""
    return max(1, -(-(problem.rule.weight.numel() - 1) // 16))


def _splits(x: Tensor) -> tuple[int, int]:
    """The number of parts of the samples of x, and their size: all programs are resident."""
    groups, n, num = x.shape
    blocks = groups * triton.cdiv(num, _BLOCK_M)
    splits = max(1, _PROGRAMS_PER_SM * card(x.device).processors // blocks)
    samples = triton.cdiv(n, min(splits, triton.cdiv(n, _MIN_SAMPLES)))
    samples = triton.cdiv(samples, _ROWS) * _ROWS
    return triton.cdiv(n, samples), samples


def aligned(a: Tensor, rows: int = 1) -> Tensor:
    """a [P, D], or a copy whose rows can be read 16 bytes at a time, filled with zeros.

    D becomes a multiple of 16 and P one of `rows`. A copy costs less than unaligned loads.
    """
    across, down = -a.shape[1] % 16, -a.shape[0] % rows
    if across or down:
        return torch.nn.functional.pad(a, (0, across, 0, down))
    astray = type(a) is Tensor and a.data_ptr() % 16  # a traced tensor has no address
    if astray or a.stride(0) % 16 or a.stride(1) != 1:
        return a.clone(memory_format=torch.contiguous_format)
    return a


def product(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """out [P, Q], in float32: a [P, D] @ b [D, Q], or added to it, with the accuracy of float32.

    b is bfloat16 and a not float64, both as `aligned` gives them; b may be transposed.
    """
    rows, columns = out.shape
    if not rows:
        return out
    here = card(a.device)
    large = 2 * triton.cdiv(rows, 128) * triton.cdiv(columns, 128) >= here.processors
    block = 128 if large else 64  # small tiles where large ones would leave most processors idle
    _launch(
        kernels.product_kernel, triton.cdiv(rows, block) * triton.cdiv(columns, block),
        a, b, out, a.stride(0), *b.stride(), rows, columns, a.shape[1],
        PARTS=_PARTS[a.dtype], ADD=add, INTERPRET=INTERPRET, BLOCK=block,
        BLOCK_D=64 if here.shared_memory >= _LARGE else 32, warps=8 if large else 4,
    )  # fmt: skip
    return out


def gaussian_directions(num: int, dim: int, seed: int, step: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and scale of `sigreg.directions.draw` on the step's GPU, with the same bits."""
    weyl, mix_a, mix_b = HASH
    # As integers: an interpreter without bfloat16 stores them as they are.
    table = quantiles(step.device).view(torch.int16)
    out = torch.empty(num, dim, dtype=torch.int16, device=step.device)
    scale = torch.empty(num, dtype=torch.float32, device=step.device)
    with on_device(step):
        _launch(
            kernels.rows_kernel, num,
            step, table, out, scale, hash_start(seed), dim, (dim + 3) // 4, GRID=GRID,
            WEYL=weyl, MIX_A=mix_a, MIX_B=mix_b, BLOCK=triton.next_power_of_2(dim), warps=4,
        )  # fmt: skip
    return out.view(torch.bfloat16), scale


# A second operator: compilers cannot trace messages between ranks, and this one needs triton.
loss_triton_op = operator_of(torch.library.triton_op, "sigreg::loss_triton", {"triton": loss})
register_flop_formula([torch.ops.sigreg.loss, torch.ops.sigreg.loss_triton])(flops)
