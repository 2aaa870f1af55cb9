"""What a kernel is asked, what it answers, and the two phases that most of them share.

Letters: G batches, N samples, D dims, M directions, K knots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sigreg._distributed import over_ranks, whereabouts
from sigreg.directions import Directions
from sigreg.quadrature import Quadrature
from sigreg.reference import epps_pulley, epps_pulley_slope

__all__ = ["Answer", "Parts", "Problem", "effective_size", "finish", "in_two_phases"]


class Problem(NamedTuple):
    """One call of `sigreg::loss`.

    Attributes:
        z: [G, N, D], any floating dtype and any strides, never written.
        directions: rows [M, D], in bfloat16 and exact where drawn, and their scale [M] in float32,
            None for rows that are unit vectors in z's precision.
        shares: [G, N], how much each sample counts: zeros and ones for a mask, any non-negative
            number for weights; None counts all once. In the precision of the answer.
        rule: weight and target [K] in the precision of the answer; spacing is not None.
        scale_by_n: whether the statistic is multiplied by N.
        chunk: directions projected at a time; 0 leaves it to the kernel.
        group: name of the ranks that share the samples, "" for this process alone.
        want_z: whether the gradient with respect to z is asked for.
        want_rows: the same for the rows, whose scale is then None.
    """

    z: Tensor
    directions: Directions
    shares: Tensor | None
    rule: Quadrature
    scale_by_n: bool
    chunk: int
    group: str
    want_z: bool
    want_rows: bool

    def own_sizes(self) -> tuple[Tensor, Tensor]:
        """Σ share and Σ share², [G] each, of this process's samples."""
        groups, n, _ = self.z.shape
        if self.shares is None:
            size = self.rule.weight.new_full((groups,), n)
            return size, size
        return self.shares.sum(1), self.shares.square().sum(1)

    def over_ranks(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`sums`, of any shape, and the two sizes, each over all ranks: the only message.

        NaN if the ranks drew different directions.
        """
        drawn = self.group and self.directions.scale is not None
        mark = self.directions.mark() if drawn else None
        sums, total, squares = over_ranks([sums, *self.own_sizes()], mark, self.group)
        return sums, total, squares


# The loss [] in float32 (float64 for float64 z), and the gradients with respect to z [G, N, D] and
# to the rows [M, D], contiguous and in the loss's dtype; of shape [0] where not asked for.
Answer = tuple[Tensor, Tensor, Tensor]


def effective_size(total: Tensor, squares: Tensor, scale_by_n: bool) -> tuple[Tensor, Tensor]:
    """What to divide sums by to get means, and the factor N of the statistic.

    N is Kish's effective size (Σ share)² / Σ share²: the number of samples if all count alike, and
    what keeps the noise floor where it is if they do not. No samples have N = 0.
    """
    some = total != 0
    divisor = torch.where(some, total, 1)
    n = total.square() / torch.where(some, squares, 1)
    return divisor, n if scale_by_n else n.sign()


def finish(sums: Tensor, total: Tensor, squares: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Loss [], and its derivative with respect to the sums [G, M, 2K], both over all ranks."""
    groups, num, _ = sums.shape
    divisor, n = effective_size(total[:, None], squares[:, None], problem.scale_by_n)
    cos, sin = (sums / divisor[..., None]).chunk(2, -1)
    loss = epps_pulley(cos, sin, n, problem.rule).mean()
    # DDP and FSDP will divide by the number of ranks.
    ranks, _ = whereabouts(problem.group)
    slope = epps_pulley_slope(cos, sin, n * (ranks / (groups * num)) / divisor, problem.rule)
    return loss, torch.cat(slope, -1)


class Parts(NamedTuple):
    """What `in_two_phases` needs of a kernel.

    Attributes:
        project: (z, directions) -> x [G, N, M], the projections ⟨scale_m rows_m, z_n⟩.
        sums: (x, shares, K, spacing) -> [G, M, 2K], Σ_n share cos(k·spacing·x) in [..., :K] and the
            sines in [..., K:].
        pull: (x, shares, slope, spacing) -> the gradient of Σ slope · sums with respect to x, in
            whose memory it may lie.
    """

    project: Callable[[Tensor, Directions], Tensor]
    sums: Callable[[Tensor, Tensor | None, int, float], Tensor]
    pull: Callable[[Tensor, Tensor | None, Tensor, float], Tensor]


def in_two_phases(parts: Parts, problem: Problem) -> Answer:
    """Sums of all directions, then one message between ranks, then the gradients."""
    z, directions, shares, rule, _, chunk, *_ = problem
    spacing, knots = rule.spacing, rule.weight.numel()
    assert spacing is not None
    z = z.to(rule.weight)
    blocks = directions.split(chunk or len(directions.rows))
    x, found = z, []
    for block in blocks:
        x = parts.project(z, block.to(z))
        found.append(parts.sums(x, shares, knots, spacing))
    sums = torch.cat(found, 1) if len(found) > 1 else found[0]
    loss, slope = finish(*problem.over_ranks(sums), problem)
    grad_z = z.new_zeros(z.shape if problem.want_z else 0)
    grad_rows = z.new_zeros(directions.rows.shape if problem.want_rows else 0)
    if not (problem.want_z or problem.want_rows):
        return loss, grad_z, grad_rows
    if directions.scale is not None:
        slope = slope * directions.scale.to(slope)[:, None]
    first = 0
    for block in blocks:
        num, block = len(block.rows), block.to(z)
        if len(blocks) > 1:
            x = parts.project(z, block)
        # The last use of x: its gradient may take its place.
        pull = parts.pull(x, shares, slope[:, first : first + num].contiguous(), spacing)
        if problem.want_z:
            grad_z += pull @ block.rows
        if problem.want_rows:
            torch.sum(pull.mT @ z, 0, out=grad_rows[first : first + num])
        first += num
    return loss, grad_z, grad_rows
