"""A malformed call ends in one line that names the argument; a well-formed one is not refused."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import planners
from planners import (
    CEM,
    GRASP,
    ICEM,
    MPC,
    MPPI,
    AugmentedLagrangian,
    BestSoFar,
    Bounds,
    CategoricalCEM,
    Colored,
    GradientDescent,
    Integrated,
    Kernel,
    Method,
    PredictiveSampling,
    Proposals,
    Refine,
    SimplexGradient,
    StableWorldModelSolver,
    from_dynamics,
    optimize,
    planning_step,
    split_blocks,
)


def bowl(a: Tensor) -> Tensor:
    """|a|²."""
    return a.square().sum((-1, -2))


def add(s: Tensor, a: Tensor) -> Tensor:
    """Dynamics, and as a running cost one number a row."""
    return (s + a)[:, 0]


class Model:
    """As much of the platform's model as a solver asks for."""

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        """[B, S]."""
        return bowl(action_candidates)


PLAN = torch.zeros(2, 3, 1)
WELL_FORMED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "CEM": (CEM, {}),
    "ICEM": (ICEM, {}),
    "MPPI": (MPPI, {}),
    "PredictiveSampling": (PredictiveSampling, {}),
    "CategoricalCEM": (CategoricalCEM, {}),
    "SimplexGradient": (SimplexGradient, {}),
    "GradientDescent": (GradientDescent, {}),
    "GRASP": (GRASP, {"step": bowl, "initial": torch.zeros(2, 1), "goal": torch.zeros(2, 1)}),
    "Proposals": (Proposals, {"method": CEM(), "candidates": torch.zeros(1, 2, 5, 2)}),
    "Refine": (Refine, {"first": CEM(), "then": CEM(), "after": 1}),
    "BestSoFar": (BestSoFar, {"method": CEM()}),
    "AugmentedLagrangian": (AugmentedLagrangian, {"method": CEM(), "constraint": bowl}),
    "Colored": (Colored, {"beta": 1.0}),
    "Integrated": (Integrated, {}),
    "Kernel": (Kernel, {"num_support": 2}),
    "Bounds": (Bounds, {"low": 0.0, "high": 1.0}),
    "MPC": (MPC, {"method": CEM(), "horizon": 3, "action_dim": 1, "iterations": 1}),
    "StableWorldModelSolver": (
        StableWorldModelSolver,
        {"method": CEM(), "cost": Model(), "iterations": 1},
    ),
    "optimize": (
        optimize,
        {"method": CEM(8, 2), "cost": bowl, "plan": PLAN, "iterations": 1, "seed": 0},
    ),
    "planning_step": (planning_step, {"method": CEM()}),
    "from_dynamics": (from_dynamics, {"step": add, "running_cost": add}),
    "split_blocks": (split_blocks, {"actions": PLAN, "block": 1}),
}
RECORDS = {"Cost", "MPCRecord", "Method", "Plan", "Progress", "Scored"}
BIG = torch.zeros(5, 4, 3, 2)
# What nothing can take: another kind, no number, sizes and signs that no argument has.
WRONG = [None, "seven", object(), float("nan"), [], -7, BIG, CEM]
# Arguments with which a value above is meant, or which torch itself checks in clear words.
TAKEN = {
    ("seed", -7), ("bounds", None), ("stop", None), ("deadline", None), ("committed", None),
    ("previous", None), ("callback", None), ("top_k", None), ("choices", None), ("low", -7),
    ("mean", -7), ("correlation", None), ("terminal_cost", None), ("batch_size", None),
    ("dtype", None), ("device", None), ("high", -7), ("keep_mean", None), ("unit", None),
    ("adapt_std", None), ("actions", BIG), ("candidates", BIG),
    ("Proposals.method", None),
}  # fmt: skip
# A class can be called, and may be such a function.
CALLED = {
    "rule", "step", "constraint", "cost", "running_cost", "terminal_cost", "callback", "iterations",
    "candidates",
}  # fmt: skip
# Not looked at until they are used; or only ever true or false.
LAZY = {"dtype", "device", "keep_mean", "unit", "adapt_std", "cost_", "callbacks", "correlation"}


def arguments() -> list[tuple[str, str]]:
    """Every argument of every public callable."""
    found = []
    for name, (call, _) in WELL_FORMED.items():
        names = (
            [field.name for field in dataclasses.fields(call)]
            if dataclasses.is_dataclass(call)
            else list(inspect.signature(call).parameters)
        )
        found += [(name, argument) for argument in names if argument not in LAZY]
    return found


def test_every_public_callable_is_tried() -> None:
    """What can be called and is in planners.__all__ is in the table above."""
    assert set(planners.__all__) == set(WELL_FORMED) | RECORDS


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_well_formed_call_is_taken(name: str) -> None:
    """The calls that the others are made from are fine themselves."""
    call, given = WELL_FORMED[name]
    call(**given)


@pytest.mark.parametrize(("name", "argument"), arguments())
def test_a_malformed_argument_is_named(name: str, argument: str) -> None:
    """Other kinds, NaN, negative sizes and wrong shapes: an error that begins with the name."""
    call, given = WELL_FORMED[name]
    for value in WRONG:
        names = argument, f"{name}.{argument}"
        if any(key in names and value is known for key, known in TAKEN) or (
            value is CEM and argument in CALLED
        ):
            continue
        with pytest.raises((TypeError, ValueError)) as told:
            call(**(given | {argument: value}))
        message = str(told.value)
        assert re.search(rf"\b{argument}\b", message), (argument, value, message)
        assert "\n" not in message


def test_numbers_of_other_libraries_are_numbers() -> None:
    """numpy's integers and floats are settings like Python's."""
    np = pytest.importorskip("numpy")
    method = CEM(np.int64(20), np.int32(4), init_std=np.float32(0.5), momentum=np.float64(0.1))
    mpc = MPC(method, horizon=np.int64(3), action_dim=np.int64(1), iterations=np.int32(2))
    assert mpc.act(bowl).shape == (1, 1, 1)
    assert isinstance(method, Method)


def test_costs_of_another_kind_are_refused() -> None:
    """Integers have no slope, and a cost without gradient serves no gradient method."""
    with pytest.raises(ValueError, match=r"cost must map .* to floats"):
        optimize(CEM(8, 2), lambda a: bowl(a).long(), PLAN, iterations=1)
    with pytest.raises(ValueError, match="cost must be differentiable"):
        optimize(GradientDescent(), lambda a: bowl(a).detach(), PLAN, iterations=1)
