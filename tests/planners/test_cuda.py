"""On a GPU: the same noise bit for bit, no waiting in the loop, and the loop as a CUDA graph."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from planners import CEM, ICEM, MPPI, BestSoFar, Bounds, PredictiveSampling, optimize
from planners.noise import Noise, Stream

from .known import quadratic

pytestmark = pytest.mark.gpu
SAMPLERS = [CEM(), MPPI(top_k=64, adapt_std=True), PredictiveSampling(), BestSoFar(CEM())]


def test_noise_has_the_same_bits_on_every_device() -> None:
    """Normal and uniform numbers of a GPU are those of the CPU."""
    for iteration in (0, 40):
        for draw in (Noise.normal, Noise.uniform):
            ours = draw(Noise(Stream(torch.arange(5).cuda()), iteration), (300, 5, 10))
            assert torch.equal(
                ours.cpu(), draw(Noise(Stream(torch.arange(5)), iteration), (300, 5, 10))
            )


@pytest.mark.parametrize("method", [*SAMPLERS, ICEM()], ids=repr)
def test_nothing_in_the_loop_waits(method: Any) -> None:
    """Between two cost calls torch finds no synchronisation with the host."""
    target = quadratic(4).minimiser.cuda()
    start = torch.zeros_like(target)

    def plan(calls: list[int]) -> None:
        def cost(candidates: torch.Tensor) -> torch.Tensor:
            torch.cuda.set_sync_debug_mode("error")
            calls.append(0)
            costs = (candidates - target[:, None]).square().sum((-1, -2))
            if len(calls) == 5:
                torch.cuda.set_sync_debug_mode("default")
            return costs

        optimize(method, cost, start, iterations=5, bounds=Bounds(-9.0, 9.0))

    try:
        plan([])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_search_stops_as_on_the_cpu() -> None:
    """The answer is read one look later, and the plan is the one of the look that settled it."""
    problem = quadratic(4)
    given = {"iterations": 400, "stop": 0.02, "bounds": Bounds(torch.full((1,), -9.0).cuda(), 9.0)}
    ours = optimize(CEM(), problem.cost, problem.start, **given)
    target = problem.minimiser.cuda()
    weight = torch.logspace(0, 1, target[0].numel()).view_as(target[0]).cuda()
    theirs = optimize(
        CEM(), lambda a: (weight * (a - target[:, None]).square()).flatten(2).sum(-1),
        problem.start.cuda(), **given,
    )  # fmt: skip
    assert ours.stopped == theirs.stopped == "converged"
    torch.testing.assert_close(theirs.actions.cpu(), ours.actions, atol=0.02, rtol=0)


def test_a_deadline_holds_though_the_host_runs_ahead() -> None:
    """Work that is queued counts: when the call returns, the time is not over by much."""
    a = torch.rand(4096, 4096, device="cuda")

    def heavy(candidates: torch.Tensor) -> torch.Tensor:
        b = a
        for _ in range(20):
            b = (b @ a).clamp(-1, 1)
        return candidates.square().flatten(2).sum(-1) + b.mean() * 0

    start = torch.ones(1, 2, 2).cuda()
    optimize(CEM(), heavy, start, iterations=3)
    began = time.perf_counter()
    plan = optimize(CEM(), heavy, start, iterations=100_000, deadline=0.5)
    assert plan.stopped == "deadline"
    assert time.perf_counter() - began < 0.6


@pytest.mark.parametrize("method", SAMPLERS, ids=repr)
def test_the_loop_is_a_cuda_graph(method: Any) -> None:
    """Captured once, replayed with a new goal in place, it gives the eager plan."""
    targets = quadratic(8).minimiser.cuda()
    goal, start = targets[:4].clone(), torch.zeros_like(targets[:4])
    seed = torch.arange(4).cuda()

    def plan() -> torch.Tensor:
        return optimize(
            method,
            lambda a: (a - goal[:, None]).square().sum((-1, -2)),
            start,
            iterations=5,
            bounds=Bounds(-9.0, 9.0),
            seed=seed,
        ).actions

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        plan()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = plan()
    goal.copy_(targets[4:])
    graph.replay()
    torch.testing.assert_close(captured, plan())
