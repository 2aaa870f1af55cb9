"""The platform's solver protocol: what it calls, it gets."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from planners import (
    CEM,
    ICEM,
    MPPI,
    BestSoFar,
    Bounds,
    CategoricalCEM,
    Refine,
    SimplexGradient,
    StableWorldModelSolver,
    optimize,
)

np = pytest.importorskip("numpy")


@dataclass(frozen=True)
class Config:
    """The fields of the platform's PlanConfig that a solver reads."""

    horizon: int = 4
    action_block: int = 3
    receding_horizon: int = 4
    warm_start: bool = True


@dataclass(frozen=True)
class Space:
    """A vectorised action space of n environments with two controls."""

    shape: tuple[int, ...]


class Model:
    """Scores candidates against a target in `info`; keeps an encoding in it, as LeWM does."""

    def __init__(self) -> None:
        self.encoded = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, torch.dtype] = {}

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """[B, S]."""
        for name in ("target", "pixels", "step"):
            self.shapes[name] = tuple(info_dict[name].shape)
            self.kinds[name] = info_dict[name].dtype
        if "code" not in info_dict:
            self.encoded += 1
            info_dict["code"] = 2 * info_dict["target"]
        difference = action_candidates - info_dict["code"] / 2
        return difference.square().flatten(2).sum(-1)


def make(
    method: Any = None, **given: Any
) -> tuple[StableWorldModelSolver[Any], Model, dict[str, Any]]:
    """A configured solver for 2 environments, its model, and an info dictionary."""
    model = Model()
    given = {"batch_size": None} | given
    solver = StableWorldModelSolver(method or CEM(), model, iterations=20, **given)
    solver.configure(action_space=Space((2, 2)), n_envs=2, config=Config())
    info = {
        "target": torch.linspace(-0.5, 0.5, 48).view(2, 4, 6).double(),
        "pixels": np.zeros((2, 1, 3, 8, 8), dtype=np.uint8),
        "step": torch.zeros(2, 1, dtype=torch.int64),
        "name": ["a", "b"],
    }
    return solver, model, info


def test_it_has_the_platforms_properties() -> None:
    """action_dim counts the block, n_envs and horizon are as configured."""
    solver, _, _ = make()
    assert (solver.action_dim, solver.n_envs, solver.horizon) == (6, 2, 4)


def test_it_plans_all_environments_and_returns_the_platforms_keys() -> None:
    """Actions [n, H, A·block] find the target; mean, var and costs come along, on the CPU."""
    solver, model, info = make()
    out = solver(info)
    torch.testing.assert_close(out["actions"].double(), info["target"], atol=0.05, rtol=0)
    assert out["actions"].device.type == "cpu"
    assert set(out) == {"actions", "mean", "var", "costs"}
    assert len(out["costs"]) == 2
    assert model.shapes == {
        "target": (2, 300, 4, 6),
        "pixels": (2, 300, 1, 3, 8, 8),
        "step": (2, 300, 1),
    }
    assert model.kinds == {
        "target": torch.float32,
        "pixels": torch.uint8,
        "step": torch.int64,
    }
    assert set(info) == {"target", "pixels", "step", "name"}


def test_encodings_are_kept_between_iterations() -> None:
    """What a model writes into the expanded dictionary is there in the next iteration."""
    solver, model, info = make()
    solver.solve(info)
    assert model.encoded == 1
    solver.solve(info)
    assert model.encoded == 2
    shrinking, model, info = make(ICEM(64, 8))
    shrinking.solve(info)
    assert model.encoded > 1


def test_a_warm_start_leads() -> None:
    """A partial plan is the start of the search, the rest is zero."""
    solver, _, info = make()
    out = solver.solve(info, torch.full((2, 2, 6), 0.3))
    start = torch.zeros(2, 4, 6)
    start[:, :2] = 0.3
    target = info["target"].float()
    same = optimize(
        CEM(),
        lambda a: (a - target[:, None]).square().flatten(2).sum(-1),
        start,
        iterations=20,
        seed=1234,
    )
    torch.testing.assert_close(out["actions"], same.actions)
    with pytest.raises(ValueError, match="init_action must be"):
        solver.solve(info, torch.zeros(2, 5, 6))


@pytest.mark.filterwarnings("ignore:most candidates")
def test_bounds_are_the_environments() -> None:
    """With the scaler's mean and std no planned action leaves the box once undone."""
    solver, _, info = make(bounds=Bounds(-0.1, 0.1, mean=[0.05, 0.0], std=[0.5, 0.5]))
    out = solver.solve(info)
    raw = out["actions"].view(2, 12, 2) * 0.5 + torch.tensor([0.05, 0.0])
    assert raw.abs().max() <= 0.1 + 1e-6


def test_calls_differ_and_repeat_from_the_start() -> None:
    """Each call draws anew; a second solver with the same seed repeats the first."""
    one, _, info = make(seed=3)
    two, _, _ = make(seed=3)
    first, second = one.solve(info), one.solve(info)
    assert not torch.equal(first["actions"], second["actions"])
    assert torch.equal(first["actions"], two.solve(info)["actions"])


def test_the_batch_size_is_a_matter_of_speed_alone() -> None:
    """One environment after another, or all at once: the same plans, costs and spreads."""
    together, _, info = make()
    alone, model, _ = make(batch_size=1)
    expected, found = together.solve(info), alone.solve(info)
    torch.testing.assert_close(found["actions"], expected["actions"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found["var"][0], expected["var"][0], rtol=0, atol=1e-5)
    assert found["costs"] == pytest.approx(expected["costs"], abs=1e-5)
    assert model.shapes["pixels"] == (1, 300, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        make(batch_size=0)


class Far:
    """Cheapest at 5, outside of every box here."""

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """[B, S]."""
        return (action_candidates - 5).square().sum((-1, -2))


def box(low: Any, high: Any, kind: Any = np.float32) -> SimpleNamespace:
    """A vectorised Box, as gymnasium has it."""
    low, high = np.asarray(low, kind), np.asarray(high, kind)
    return SimpleNamespace(shape=low.shape, low=low, high=high, dtype=low.dtype)


@pytest.mark.parametrize("method", [CEM(30, 6), ICEM(30, 6), MPPI(30)], ids=repr)
@pytest.mark.filterwarnings("ignore:most candidates")
def test_the_box_of_the_action_space_holds(method: Any) -> None:
    """Without bounds the space's own box is kept, and one warning says in which units."""
    solver = StableWorldModelSolver(method, Far(), iterations=5)
    space = box([[-0.4, 0.5]] * 3, [[0.3, 0.7]] * 3)
    with pytest.warns(RuntimeWarning, match="bounds are None: plans keep to the action space's"):
        solver.configure(action_space=space, n_envs=3, config=Config())
    steps = solver.solve({"pixels": torch.zeros(3, 1)})["actions"].unflatten(-1, (3, 2))
    assert (steps >= torch.tensor([-0.4, 0.5])).all()
    assert (steps <= torch.tensor([0.3, 0.7])).all()


def test_given_bounds_and_open_spaces_are_silent() -> None:
    """Nothing is said where bounds are given, or where the space has none."""
    solver = StableWorldModelSolver(CEM(8, 2), Far(), iterations=1, bounds=Bounds(-9.0, 9.0))
    solver.configure(action_space=box([[-1.0]], [[1.0]]), n_envs=1, config=Config())
    free = StableWorldModelSolver(CEM(8, 2), Far(), iterations=1)
    free.configure(action_space=box([[-np.inf]], [[np.inf]]), n_envs=1, config=Config())
    assert free.solve({"pixels": torch.zeros(1, 1)})["actions"].shape == (1, 4, 3)


@pytest.mark.parametrize(
    ("method", "space", "message"),
    [
        (CEM(), SimpleNamespace(shape=(2,), nvec=[4, 4]), "must hold a box for CEM"),
        (CategoricalCEM(), box([[-1.0]], [[1.0]]), "must hold choices for CategoricalCEM"),
        (CEM(), box([[0]], [[255]], np.uint8), "must hold floats or choices"),
        (CategoricalCEM(), SimpleNamespace(shape=(2,), nvec=[2, 3]), "one number of options"),
        (CategoricalCEM(choices=3), SimpleNamespace(shape=(1,), nvec=[4]), "choices must be 4"),
        (CEM(), box([[-1.0], [-2.0]], [[1.0], [1.0]]), "same box for every environment"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(method: Any, space: Any, message: str) -> None:
    """Choices for a continuous method, numbers for a discrete one, boxes that differ."""
    solver = StableWorldModelSolver(method, Far(), iterations=1)
    with pytest.raises(ValueError, match=message):
        solver.configure(action_space=space, n_envs=2, config=Config())


class Twos:
    """Cheapest where every choice of four is number 2."""

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """[B, S]."""
        return -action_candidates.unflatten(-1, (-1, 4))[..., 2].sum((-1, -2))


@pytest.mark.parametrize(
    "method",
    [
        CategoricalCEM(60, 6),
        SimplexGradient(8),
        BestSoFar(CategoricalCEM(60, 6)),
        Refine(CategoricalCEM(60, 6), SimplexGradient(4), after=6),
    ],
    ids=lambda m: type(m).__name__,
)
def test_choices_are_planned_and_returned_as_numbers(method: Any) -> None:
    """For Discrete(4) in blocks of 3 actions are [n, H, 3] numbers, which also start a plan."""
    solver = StableWorldModelSolver(method, Twos(), iterations=16, batch_size=None)
    space = SimpleNamespace(shape=(2,), nvec=np.array([4, 4]), dtype=np.dtype(np.int64))
    solver.configure(action_space=space, n_envs=2, config=Config())
    assert solver.action_dim == 12
    actions = solver.solve({"x": torch.zeros(2, 1)})["actions"]
    assert torch.equal(actions, torch.full((2, 4, 3), 2))
    one = SimpleNamespace(shape=(), n=4, dtype=np.dtype(np.int64))
    solver.configure(action_space=one, n_envs=1, config=Config())
    again = solver.solve({"x": torch.zeros(1, 1)}, actions[:1, 1:])
    assert torch.equal(again["actions"], actions[:1])


def test_the_platforms_recorders_are_called() -> None:
    """Each sees every iteration of every batch, and its history comes back under its key."""

    class Recorder:
        output_key = "best"

        def reset(self) -> None:
            self.history: list[list[float]] = []

        def start_batch(self) -> None:
            self.history.append([])

        def __call__(self, *, step: int, candidates: Tensor, costs: Tensor, **_: Any) -> None:
            assert step == len(self.history[-1])
            assert candidates.shape[:2] == costs.shape
            self.history[-1].append(costs.min().item())

        def end_solve(self) -> None:
            self.ended = True

    recorder = Recorder()
    solver, _, info = make(batch_size=1, callbacks=[recorder])
    for _ in range(2):
        history = solver.solve(info)["callbacks"]["best"]
        assert [len(batch) for batch in history] == [20, 20]
    assert recorder.ended


def test_what_is_no_batch_is_passed_on_as_it_is() -> None:
    """Numbers, tensors without dimensions and texts reach the model unchanged."""
    solver, model, info = make(batch_size=1)
    extra = {"scale": torch.tensor(2.0), "rate": np.float32(3), "names": "two", "three": np.ones(3)}
    seen: dict[str, Any] = {}
    plain = model.get_cost

    def watched(info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        seen.update(info_dict)
        return plain(info_dict, action_candidates)

    model.get_cost = watched  # type: ignore[method-assign]
    solver.solve(info | extra)
    assert all(seen[name] is value for name, value in extra.items())


def test_an_empty_dictionary_is_refused() -> None:
    """Nothing to plan for is said in words; text and numbers are no environments."""
    solver, _, _ = make()
    for info in ({}, {"a": "text"}, {"a": 3, "b": torch.tensor(1.0)}):
        with pytest.raises(ValueError, match="info_dict must hold tensors or arrays"):
            solver.solve(info)


def test_configure_comes_first() -> None:
    """Solving before sizes are known is an error."""
    solver = StableWorldModelSolver(CEM(), Model(), iterations=1)
    with pytest.raises(RuntimeError, match="configure must be called before solve"):
        solver.solve({"target": torch.zeros(1)})
