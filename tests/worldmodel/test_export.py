"""Exported graphs: they compute what the model computes, at sizes they were not traced with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from planners import CEM, Bounds, planning_step
from planners.contract import Scored
from planners.sampling import Gaussian
from worldmodel import ActionEncoder, CausalPredictor, ViTEncoder, WorldModel, goal_cost, presets
from worldmodel.export import PlanningStep, export_onnx, export_torch

HORIZON, ELITES = 2, 3
BOUNDS = Bounds(-0.5, 0.75, mean=0.1)
UPDATE = planning_step(CEM(num_elites=ELITES), BOUNDS)


def tiny() -> WorldModel:
    """A model of a few thousand values whose actions matter."""
    torch.manual_seed(0)
    model = WorldModel(
        encoder=ViTEncoder(8, 4, dim=16, depth=1, heads=2, projector_dim=24),
        action_encoder=ActionEncoder(action_dim=4, dim=16),
        predictor=CausalPredictor(
            16, depth=1, heads=2, history=3, dim_head=4, mlp_dim=16, projector_dim=24
        ),
    )
    for block in model.predictor.blocks:
        torch.nn.init.normal_(cast(Any, block).modulation.weight, std=0.5)
    return model.eval()


def step_inputs(B: int, S: int, known: int = 1) -> dict[str, Tensor]:
    """Inputs of a planning step, drawn anew."""
    inputs = {
        "z": torch.randn(B, known, 16),
        "goal": torch.randn(B, 16),
        "mean": torch.randn(B, HORIZON, 4),
        "std": torch.rand(B, HORIZON, 4) + 0.1,
        "noise": torch.randn(B, S, HORIZON, 4),
    }
    return inputs | ({"past": torch.randn(B, known - 1, 4)} if known > 1 else {})


@pytest.mark.parametrize("known", [1, 2, 4])
@torch.no_grad()
def test_a_planning_step_is_an_iteration_of_the_planner_on_the_goal_cost(known: int) -> None:
    """Its candidates lie in the box, its costs are goal_cost's, its mean and std the planner's."""
    model, S = tiny(), 9
    frames, goal = torch.rand(2, known, 3, 8, 8), torch.rand(2, 3, 8, 8)
    inputs = step_inputs(2, S, known)
    inputs["z"], inputs["goal"] = model.encode(frames), model.encode(goal[:, None])[:, 0]
    mean, std, costs = PlanningStep(model, UPDATE)(**inputs)

    low, high = BOUNDS.box(inputs["mean"])
    start = inputs["mean"].clamp(low, high)
    candidates = (start[:, None] + inputs["std"][:, None] * inputs["noise"]).clamp(low, high)
    candidates[:, 0] = start
    expected = goal_cost(model, frames, goal, past_actions=inputs.get("past"))(candidates)
    torch.testing.assert_close(costs, expected, rtol=1e-4, atol=1e-5)
    state = Gaussian(start, inputs["std"], start, costs[:, 0])
    scored = Scored(candidates, costs, costs.new_zeros(0), cast(Any, None))
    told = CEM(num_samples=S, num_elites=ELITES).tell(state, scored)
    torch.testing.assert_close(mean, told.mean)
    torch.testing.assert_close(std, told.spread)


@torch.no_grad()
def test_a_cost_that_is_not_finite_is_never_elite() -> None:
    """Broken candidates are never averaged; where all are broken, mean and std stay."""
    for broken in (slice(1, 4), slice(1, 7)):
        inputs = step_inputs(1, 8)
        inputs["noise"][:, broken] = torch.nan
        mean, std, costs = PlanningStep(tiny(), UPDATE)(**inputs)
        assert costs[0, broken].isinf().all()
        assert mean.isfinite().all()
        assert std.isfinite().all()
    inputs["goal"] *= torch.nan
    mean, std, costs = PlanningStep(tiny(), UPDATE)(**inputs)
    assert costs.isinf().all()
    torch.testing.assert_close(mean, inputs["mean"].clamp(*BOUNDS.box(mean)))
    torch.testing.assert_close(std, inputs["std"])


def test_a_planning_step_refuses_what_would_mislead(tmp_path: Path) -> None:
    """Dropout would make costs noisy, and a plan needs an action: both are refused."""
    with pytest.raises(ValueError, match="eval mode"):
        PlanningStep(tiny().train(), UPDATE)
    for wrong in ({"horizon": 0}, {"known": 0}):
        with pytest.raises(ValueError, match="must be an integer of at least 1, got 0"):
            export_torch(tiny(), tmp_path / "run", update=UPDATE, **wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@torch.no_grad()
def test_torch_programs_compute_what_the_model_computes(tmp_path: Path) -> None:
    """Loaded without our code, each program agrees with the model at other batch sizes."""
    model = tiny()
    files = export_torch(
        model, tmp_path, update=UPDATE, horizon=HORIZON, least_samples=ELITES, known=2
    )
    assert [f.name for f in files] == ["encoder.pt2", "predictor.pt2", "planning_step.pt2"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    encoder, predictor, step = (torch.export.load(f).module() for f in files)
    frames = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(encoder(frames), model.encoder(frames))
    z, actions = torch.randn(4, 3, 16), torch.randn(4, 3, 4)
    torch.testing.assert_close(predictor(z, actions), model.predict(z, actions))
    inputs = step_inputs(3, 17, known=2)
    torch.testing.assert_close(step(*inputs.values()), PlanningStep(model, UPDATE)(**inputs))


@pytest.mark.slow
def test_onnx_files_compute_what_the_model_computes(tmp_path: Path) -> None:
    """In onnxruntime each file agrees with the model to 1e-4 at other batch sizes."""
    pytest.importorskip("onnxscript", reason="needs sigreg[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs sigreg[export]")
    model = tiny()
    files = export_onnx(model, tmp_path, update=UPDATE, horizon=HORIZON, least_samples=ELITES)
    assert sorted(tmp_path.iterdir()) == sorted(files)

    def run(file: Path, **inputs: Tensor) -> list[Tensor]:
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        named = {name: value.numpy() for name, value in inputs.items()}
        return [torch.from_numpy(value) for value in session.run(None, named)]

    with torch.no_grad():
        frames = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
        (z,) = run(files[0], frames=frames)
        torch.testing.assert_close(z, model.encoder(frames), rtol=0, atol=1e-4)
        # Two known embeddings, filled up behind: the causal predictor does not see the filling.
        known, actions = torch.randn(4, 2, 16), torch.randn(4, 2, 4)
        filled = [torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (known, actions)]
        (following,) = run(files[1], z=filled[0], actions=filled[1])
        expected = model.predict(known, actions)
        torch.testing.assert_close(following[:, :2], expected, rtol=0, atol=1e-4)
        for B, S in ((1, ELITES), (3, 17)):
            inputs = step_inputs(B, S)
            mean, std, costs = run(files[2], **inputs)
            wanted = PlanningStep(model, UPDATE)(**inputs)
            torch.testing.assert_close(mean, wanted[0], rtol=0, atol=1e-4)
            torch.testing.assert_close(std, wanted[1], rtol=0, atol=1e-4)
            torch.testing.assert_close(costs, wanted[2], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_encoders_of_other_observations_are_exported(tmp_path: Path) -> None:
    """Several observations are inputs side by side, states are one; the answers are the model's."""
    model = presets.small(4, dim=8, observations={"pixels": 16, "proprio": 5}).eval()
    files = export_torch(
        model, tmp_path / "several", update=UPDATE, horizon=2, least_samples=ELITES
    )
    seen = {
        "pixels": torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8),
        "proprio": torch.randn(5, 5),
    }
    found = torch.export.load(files[0]).module()(*seen.values())
    torch.testing.assert_close(found, model.encoder(seen))
    model = presets.states(4, state_dim=3, dim=8).eval()
    files = export_torch(model, tmp_path / "states", update=UPDATE, horizon=2, least_samples=ELITES)
    states = torch.randn(7, 3)
    torch.testing.assert_close(torch.export.load(files[0]).module()(states), model.encoder(states))


def test_an_encoder_of_ones_own_needs_an_example(tmp_path: Path) -> None:
    """Nothing tells what it takes, until an example does."""

    class Own(torch.nn.Module):
        dim = 16

        def forward(self, x: Tensor) -> Tensor:
            return x.repeat(1, 4)

    model = WorldModel(Own(), tiny().action_encoder, tiny().predictor).eval()
    with pytest.raises(TypeError, match="needs example=observations for a Own"):
        export_torch(model, tmp_path, update=UPDATE)
    files = export_torch(model, tmp_path, update=UPDATE, example=torch.randn(2, 4))
    assert torch.export.load(files[0]).module()(torch.ones(3, 4)).shape == (3, 16)


@pytest.mark.slow
def test_a_file_that_differs_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When onnxruntime disagrees with the model, the error says by how much and no file is left."""
    pytest.importorskip("onnxscript", reason="needs sigreg[export]")
    pytest.importorskip("onnxruntime", reason="needs sigreg[export]")
    monkeypatch.setattr("worldmodel.export._TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match=r"encoder\.onnx gives z with an error of"):
        export_onnx(tiny(), tmp_path, update=UPDATE, horizon=HORIZON, least_samples=ELITES)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxscript the error says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", cast(Any, sys))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ImportError, match=r'a file for ONNX needs onnxscript: pip install "sigreg\[export\]"'
    ):
        export_onnx(presets.small(), tmp_path, update=UPDATE)
