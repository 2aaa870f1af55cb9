"""Sub-goals for goals beyond a plan's horizon.

Letters: B problems, M landmarks, D embedding dims.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel._arguments import checked
from worldmodel.records import shuffled

__all__ = ["Graph", "warn_beyond"]

Distance = Callable[[Tensor, Tensor], Tensor]
"""z [..., D], z_goal [..., D] -> log(1 + blocks) [...]: `heads.fit_distance`'s, with its unit of 1,
or the `distance` of a value."""

_ROWS = 2**16  # pairs of embeddings per call of the distance


@checked(landmarks="N D", ways="N N", edge="(0, inf)")
@dataclass(frozen=True, eq=False)
class Graph:
    """Recorded embeddings as landmarks, and the shortest ways between them.

    A learned distance is accurate for near embeddings and too short for far ones, mainly across
    walls. So ways consist of short edges alone, and far distances are their sums.

        d(i, j) = least Σ of edges from i to j,   edges (u, v): distance(u, v) ≤ `edge` blocks

    Source: Search on the replay buffer, Eysenbach et al., arXiv:1906.05253.
    """

    landmarks: Tensor  #: [M, D]
    distance: Distance  #: Of embeddings.
    ways: Tensor  #: [M, M], blocks, inf where there is no way.
    edge: float  #: Most blocks of one edge.

    @classmethod
    @checked(z="E T D", edge="(0, inf)")
    def of(
        cls, z: Tensor, distance: Distance, *, num: int = 500, edge: float = 4.0, seed: int = 0
    ) -> "Graph":
        """Choose landmarks among recorded embeddings, and find all shortest ways between them.

        Args:
            z, distance: [E, T, D], recorded, and of embeddings.
            num, seed: most landmarks, M: farthest points among ten times as many drawn embeddings.
            edge: most blocks of one edge: short enough for an accurate distance and for a plan.
        """
        from scipy.sparse.csgraph import shortest_path

        flat = z.flatten(0, 1)
        drawn = flat[shuffled(len(flat), seed)[: 10 * num].to(flat.device)]
        chosen, apart = [0], (drawn - drawn[0]).square().sum(-1)
        for _ in range(min(num, len(drawn)) - 1):
            chosen.append(int(apart.argmax()))
            apart = torch.minimum(apart, (drawn - drawn[chosen[-1]]).square().sum(-1))
        marks = drawn[chosen]
        blocks = _blocks(distance, marks, marks)
        blocks = torch.where(blocks <= edge, blocks.clamp_min(1e-3), torch.inf)
        ways = shortest_path(blocks.double().cpu().numpy(), method="D")
        return cls(marks, distance, torch.from_numpy(ways).to(marks), edge)

    @checked(z_goal="B D", reach="(0, inf)")
    def toward(self, z_goal: Tensor, *, reach: float | None = None) -> Callable[[Tensor], Tensor]:
        """The next sub-goal on the way to goals.

            total_i = d(z, i) + left_i,   left_i = min_j (d(i, j) + d(j, z_goal))
            argmin_i left_i   over landmarks i within `reach` whose total is within a block of the
                              least: of those on the way, the farthest

        Args:
            z_goal, reach: [B, D]; blocks within a plan's horizon, None is the graph's `edge`.
        Returns: a function of now [B, D] to sub-goals [B, D]; z_goal if in reach, or without a way.
        """
        reach = self.edge if reach is None else reach
        last = _blocks(self.distance, self.landmarks, z_goal)  # [M, B]
        last = torch.where(last <= self.edge, last, torch.inf)
        left = (self.ways.unsqueeze(-1) + last).amin(1).T  # [B, M]

        def subgoal(z: Tensor) -> Tensor:
            first = _blocks(self.distance, z, self.landmarks)  # [B, M]
            total = torch.where(first <= reach, first, torch.inf) + left
            least = total.amin(1)
            at = torch.where(total <= least[:, None] + 1, left, torch.inf).argmin(1)
            here = self.distance(z, z_goal).expm1()
            direct = (here <= reach) | least.isinf()
            return torch.where(direct[:, None], z_goal, self.landmarks[at])

        return subgoal


@checked(blocks="* B")
def warn_beyond(blocks: Tensor, horizon: int) -> None:
    """Warn if goals lie beyond the horizon of a plan.

    Args:
        blocks, horizon: [B], distances to goals, `distance(z, z_goal).expm1()`; H of a plan.
    Warns: RuntimeWarning with their number and median distance.
    """
    far = blocks > horizon
    if bool(far.any()):
        warnings.warn(
            f"{int(far.sum())} of {len(far)} goals are farther than a plan of {horizon} blocks "
            f"can see, {float(blocks[far].median()):.0f} blocks at the median: plan to sub-goals "
            "(worldmodel.subgoals, evaluate --subgoals graph), or give the cost a distance that "
            "knows the way (evaluate --distance)",
            RuntimeWarning,
            stacklevel=2,
        )


@torch.no_grad()
def _blocks(distance: Distance, a: Tensor, b: Tensor) -> Tensor:
    """Blocks from each of a [M, D] to each of b [n, D]: [M, n]."""
    rows = max(1, _ROWS // len(b))
    parts = [
        distance(*torch.broadcast_tensors(part.unsqueeze(1), b)).expm1() for part in a.split(rows)
    ]
    return torch.cat(parts)
