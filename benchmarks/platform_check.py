"""Does `StableWorldModelSolver` work inside stable_worldmodel, and give its solver's plans?

The script runs the platform's own `WorldModelPolicy` with its own LeWM (the reduced one of the
goldens) around our solver, and its `CEMSolver` beside ours on the same noise. Needs
stable_worldmodel, see `nox -s parity` for what that takes.

    python benchmarks/platform_check.py
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import types
from typing import Any
from unittest import mock

import harness
import parity
import torch

from planners import CEM, ICEM, MPPI, Bounds, PredictiveSampling, StableWorldModelSolver
from planners.noise import Noise, Stream, problem_seeds

ENVS, CONTROLS, BLOCK, HORIZON, SAMPLES, ELITES, STEPS = 3, 5, 5, 4, 60, 10, 12
A = CONTROLS * BLOCK


def official_model() -> torch.nn.Module:
    """The platform's LeWM, filled with weights that are a function of their names."""
    from hydra.utils import instantiate

    model = instantiate(json.loads((parity.GOLDEN / "reduced" / "config.json").read_text())).eval()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(parity.hashed.state_dict(shapes))
    return model.requires_grad_(False)


def info() -> dict[str, Any]:
    """The platform's input to a solver: pictures, a goal and the last action."""
    return {
        "pixels": torch.randn(ENVS, 1, 3, 28, 28),
        "goal": torch.randn(ENVS, 1, 3, 28, 28),
        "action": torch.zeros(ENVS, 1, A),
    }


def environments() -> Any:
    """The part of a vector environment that the policy uses."""
    import gymnasium
    import numpy as np

    return types.SimpleNamespace(
        num_envs=ENVS,
        action_space=gymnasium.spaces.Box(-1, 1, (ENVS, CONTROLS), np.float32),
        single_action_space=gymnasium.spaces.Box(-1, 1, (CONTROLS,), np.float32),
    )


def ours(model: Any, method: Any, **options: Any) -> StableWorldModelSolver[Any]:
    """Our solver on the platform's model."""
    return StableWorldModelSolver(method, model, iterations=STEPS, **options)


def same_plan(model: Any) -> str:
    """Compare the platform's CEMSolver and ours on the same noise."""
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver import CEMSolver

    seed = 1234
    theirs = CEMSolver(model=model, num_samples=SAMPLES, n_steps=STEPS, topk=ELITES)
    solver = ours(model, CEM(SAMPLES, ELITES), seed=seed)
    config, envs = (
        PlanConfig(horizon=HORIZON, receding_horizon=1, action_block=BLOCK),
        environments(),
    )
    for each in (theirs, solver):
        each.configure(action_space=envs.action_space, n_envs=ENVS, config=config)
    stream = Stream(problem_seeds(seed, ENVS, torch.device("cpu")))
    noise = [Noise(stream, i).normal((SAMPLES, HORIZON, A)) for i in range(STEPS)]
    # Theirs plans one environment after another.
    draws = [step[b : b + 1] for b in range(ENVS) for step in noise]
    given = info()
    silent = contextlib.redirect_stdout(io.StringIO())
    with mock.patch("torch.randn", side_effect=draws), silent:
        expected = theirs.solve(given)
    found = solver.solve(given)
    apart = float((found["actions"] - expected["actions"]).abs().max())
    assert apart < 1e-4, apart
    return f"plans differ by at most {apart:.0e} after {STEPS} iterations"


def inside_the_policy(model: Any, method: Any) -> str:
    """`WorldModelPolicy.get_action`, with receding horizon, a warm start, a reset and a death."""
    import numpy as np
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver import Solver

    bounds = Bounds(-0.5, 0.5, std=2.0)
    solver = ours(model, method, bounds=bounds)
    assert isinstance(solver, Solver)
    config = PlanConfig(horizon=HORIZON, receding_horizon=2, action_block=BLOCK)
    policy = WorldModelPolicy(solver=solver, config=config)
    policy.set_env(environments())
    calls = 0
    for step in range(3 * BLOCK):
        given = info()
        # Environment 1 begins anew after 3 steps, so it plans alone; environment 2 dies after 7.
        given["_needs_flush"] = np.asarray([False, step == 3, False])
        given["terminated"] = np.asarray([False, False, step >= 7])
        before = solver._calls
        action = policy.get_action(given)
        calls += solver._calls - before
        assert action.shape == (ENVS, CONTROLS)
        alive = action[~given["terminated"]]
        assert np.isfinite(alive).all()
        assert np.abs(alive * 2.0).max() <= 0.5 + 1e-6
    assert calls == 4, calls
    return f"{3 * BLOCK} steps of {ENVS} environments, {calls} plans, all inside the bounds"


def main() -> None:
    """Run every check; an assertion says which does not hold."""
    kept = parity.declare_torchvision()
    torch.manual_seed(0)
    version = importlib.metadata.version("stable-worldmodel")
    with torch.no_grad():
        model = official_model()
        rows = [("CEM beside its CEMSolver, same noise", same_plan(model))]
        methods = (
            CEM(SAMPLES, ELITES),
            ICEM(SAMPLES, ELITES),
            MPPI(SAMPLES),
            PredictiveSampling(SAMPLES),
        )
        for method in methods:
            name = f"{type(method).__name__} inside WorldModelPolicy"
            rows.append((name, inside_the_policy(model, method)))
    del kept
    harness.save(
        "platform",
        f"StableWorldModelSolver inside stable_worldmodel {version}",
        [{"check": name, "found": found} for name, found in rows],
        columns=("what ran", "found"),
        rows=rows,
        note=f"The real package with its own LeWM, horizon {HORIZON}, blocks of {BLOCK}, float32.",
    )


if __name__ == "__main__":
    main()
