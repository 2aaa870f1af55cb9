"""Worker processes: what they do, what they refuse, and how they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodel.worlds._mujoco import MujocoWorld
from worldmodel.worlds._processes import Workers

Floats = NDArray[np.float32]


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Two processes that simulate numpy's own functions, which any interpreter can import."""
    pool = Workers(partial(np.random.default_rng, 0), 2)  # type: ignore[arg-type]
    yield pool
    pool.close()


class Adder(MujocoWorld):
    """A world of one number whose simulator adds actions; a picture is full of the state."""

    name, state_dim, action_dim = "adder", 1, 1

    class Simulator:
        """One agent's: the functions that a worker calls."""

        def __init__(self, image_size: int) -> None:
            self.image_size = image_size

        def step(self, state: Floats, action: Floats) -> Floats:
            """Their sum."""
            return state + action

        def draw(self, state: Floats) -> NDArray[np.uint8]:
            """A picture full of the state."""
            return np.full((3, self.image_size, self.image_size), state[0], np.uint8)

        def renderer(self, _: float) -> str:
            """Its name."""
            return "chalk"

    simulator = Simulator

    def __init__(self) -> None:
        super().__init__(16, workers=0)


def test_calls_are_shared_out_and_put_together_in_order(workers: Workers) -> None:
    """Five rows on two processes come back as five rows, more processes than rows included."""
    spawned = workers.call("normal", np.arange(5.0) * 1e6, np.zeros(5))
    assert np.array_equal(spawned, np.arange(5.0) * 1e6)
    assert np.array_equal(workers.call("normal", np.full(1, 7.0), np.zeros(1)), [7.0])


def test_a_simulators_error_is_this_processs_error(workers: Workers) -> None:
    """A ValueError over there is one here, other kinds say what failed, and work goes on."""
    with pytest.raises(ValueError, match="scale < 0"):
        workers.call("normal", np.zeros(3), np.full(3, -1.0))
    with pytest.raises(OSError, match=r"a simulator failed: AttributeError: .*'paint'"):
        workers.call("paint", np.zeros(3))
    assert np.array_equal(workers.call("normal", np.ones(3), np.zeros(3)), np.ones(3))


def test_a_killed_worker_is_told(workers: Workers) -> None:
    """Without an answer there is an error, not an endless wait."""
    workers.call("normal", np.zeros(2), np.zeros(2))
    process = workers.processes[0]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(OSError, match="simulator process died"):
        workers.call("normal", np.zeros(2), np.zeros(2))


def test_closing_ends_the_processes_and_a_later_call_starts_new_ones(workers: Workers) -> None:
    """No process outlives its workers; closing twice is harmless."""
    workers.call("normal", np.zeros(2), np.zeros(2))
    first = list(workers.processes)
    workers.close()
    workers.close()
    assert all(process.poll() is not None for process in first)
    assert np.array_equal(workers.call("normal", np.ones(2), np.zeros(2)), np.ones(2))


def test_a_worker_does_not_load_torch() -> None:
    """What a worker imports is its simulator: torch and triton stay out of its process."""
    pool = Workers(partial(eval, "__import__('sys').modules"), 1)  # type: ignore[arg-type]
    try:
        assert pool.call("__contains__", np.array(["numpy", "torch"])).tolist() == [True, False]
    finally:
        pool.close()


def test_actions_are_clipped_to_the_box_and_states_are_the_sessions_own() -> None:
    """A session feels nothing of what is written into the states it was given or has returned."""
    world = Adder()
    start = np.zeros((2, 1), np.float32)
    session = world.start(start)
    first = session.step(np.array([[5.0], [-0.25]], np.float32))
    assert first.tolist() == [[1.0], [-0.25]]
    assert start.tolist() == [[0.0], [0.0]]
    first += 100
    assert session.step(np.ones((2, 1), np.float32)).tolist() == [[2.0], [0.75]]
    start += 100
    again = world.start(start)
    start += 100
    assert again.step(np.zeros((2, 1), np.float32)).tolist() == [[100.0], [100.0]]
    assert session.render(np.array([0]))[0, 0, 0, 0] == 2
    assert world.versions() == {"numpy": np.__version__, "rendering": "chalk"}
