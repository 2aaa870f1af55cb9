"""Sub-goals: short edges make ways around walls, and a goal out of sight is said to be."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from worldmodel.subgoals import Graph, warn_beyond


def around_a_wall(a: Tensor, b: Tensor) -> Tensor:
    """Blocks of the straight line, as log(1 + blocks): it ignores walls, but one is never crossed.

    The wall is x = 0 below height 4; where a straight line of less than three blocks crosses it,
    the distance is far. Longer ones are as wrong as those that are learned.
    """
    straight = (a - b).norm(dim=-1)
    crossing = (a[..., 0] * b[..., 0] < 0) & (torch.maximum(a[..., 1], b[..., 1]) < 4)
    return torch.where(crossing & (straight < 3), 50.0, straight).log1p()


def field() -> Tensor:
    """Recorded places: a grid of 9 × 6, as episodes of one row each."""
    x, y = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(6.0), indexing="ij")
    return torch.stack([x + 0.5, y], -1)


def walk(graph: Graph, start: Tensor, goal: Tensor, steps: int) -> list[Tensor]:
    """Go one block towards each sub-goal in turn."""
    toward, at, path = graph.toward(goal), start, [start]
    for _ in range(steps):
        to = toward(at) - at
        at = at + to / to.norm(dim=-1, keepdim=True).clamp_min(1.0)
        path.append(at)
    return path


def test_ways_are_sums_of_short_edges_around_the_wall() -> None:
    """To the other side it is 8 blocks through the gap, not the 2 of a straight line."""
    graph = Graph.of(field(), around_a_wall, num=54, edge=2.5)
    at = [
        int((graph.landmarks - torch.tensor(p)).norm(dim=-1).argmin())
        for p in ((-0.5, 0), (1.5, 0))
    ]
    assert len(graph.landmarks) == 54
    assert 7.5 < graph.ways[at[0], at[1]] < 10


def test_subgoals_lead_around_the_wall() -> None:
    """A walk to each in turn arrives through the gap in the wall; a straight one would not."""
    graph = Graph.of(field(), around_a_wall, num=54, edge=2.5)
    start, goal = torch.tensor([[-2.5, 0.0], [3.5, 5.0]]), torch.tensor([[2.5, 0.0], [2.5, 5.0]])
    path = walk(graph, start, goal, 16)
    torch.testing.assert_close(path[-1], goal, atol=0.1, rtol=0)
    first = torch.stack([p[0] for p in path])
    crossed = (first[1:, 0] * first[:-1, 0] < 0).nonzero()
    assert len(crossed) == 1
    assert first[crossed[0, 0], 1] > 2.9


def test_a_goal_within_reach_is_its_own_subgoal() -> None:
    """As is one that no landmark leads to."""
    graph = Graph.of(field(), around_a_wall, num=54, edge=2.5)
    near, nowhere = torch.tensor([[-2.0, 1.3]]), torch.tensor([[99.0, 99.0]])
    for goal in (near, nowhere):
        assert torch.equal(graph.toward(goal)(torch.tensor([[-2.5, 0.0]])), goal)


def test_landmarks_are_spread_and_repeatable() -> None:
    """A tenth as many landmarks cover what was recorded, the same for the same seed."""
    z = torch.rand(50, 20, 2)
    graphs = [Graph.of(z, lambda a, b: (a - b).norm(dim=-1), num=40, seed=1) for _ in range(2)]
    assert torch.equal(graphs[0].landmarks, graphs[1].landmarks)
    covered = torch.cdist(z.flatten(0, 1), graphs[0].landmarks).amin(1).max()
    assert covered < 0.25


def test_a_goal_out_of_sight_is_said_to_be() -> None:
    """The warning counts the goals and says how far they are; within the horizon there is none."""
    with pytest.warns(RuntimeWarning, match="2 of 3 goals are farther than a plan of 5 blocks"):
        warn_beyond(torch.tensor([3.0, 12.0, 20.0]), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_beyond(torch.tensor([3.0, 4.0]), 5)
