"""On a GPU: the same noise bit for bit, no waiting in the loop, and the loop as a CUDA graph."""

from __future__ import annotations

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
