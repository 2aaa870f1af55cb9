"""The control benchmark: every model it names can be trained, kept, found again and tried."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from worldmodel.apps.settings import DemoSettings, TrialSettings
from worldmodel.checkpoint import digest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = DemoSettings(
    steps=1, episodes=6, length=40, held_out=3, pairs=3, image_size=16, dim=8, batch_size=8,
    num_proj=4,
)  # fmt: skip
SEARCH = TrialSettings(samples=4, iterations=1, elites=2, horizon=1)


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """bench_control.py as a module, beside the scripts it imports."""
    before, path = set(sys.modules), str(BENCHMARKS)
    sys.path.insert(0, path)
    try:
        spec = importlib.util.spec_from_file_location(
            "bench_control", BENCHMARKS / "bench_control.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_control"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(path)
        ours = {f"control_{part}" for part in ("cases", "models", "tables")}
        for name in ({"bench_control"} | ours) - before:
            sys.modules.pop(name, None)


def cases() -> Any:
    """control_cases.py, once `bench` has imported it."""
    return sys.modules["control_cases"]


def recipes(bench: ModuleType) -> dict[str, Any]:
    """Every kind of model once."""
    return {case.recipe.folder: case.recipe for case in cases().CASES}


def test_every_case_has_a_name_of_its_own_and_a_row(bench: ModuleType) -> None:
    """Names are files of records; a case that no table shows would be run for nothing."""
    names = [case.name for case in cases().CASES]
    assert len(set(names)) == len(names)
    tables = (BENCHMARKS / "control_tables.py").read_text()
    shown = {cases().FROZEN, cases().FULL} | {
        case.again(seed).name for case in cases().REPEATED for seed in cases().SEEDS
    }
    assert all(name in shown or f'"{name}"' in tables for name in names)
    assert {case.name for case in cases().REPEATED} < set(names)
    assert cases().chosen("λ = 0") == [c for c in cases().CASES if c.name == "λ = 0"]
    assert {c.name for c in cases().chosen("gradient")} == {"gradient"}
    assert len(cases().chosen("")) == len(names)


@pytest.mark.parametrize(
    "kind", ["weight-0.05", "frozen", "pldm", "gcbc-seed-1", "subspace-8", "dim-32"]
)
def test_a_record_is_made_once(
    bench: ModuleType, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, tried on the manifest's first pairs and written down; the next call does nothing."""
    recipe = recipes(bench)[kind]
    planner = TrialSettings() if recipe.objective == "gcbc" else SEARCH
    case = cases().Case(kind, recipe, planner=planner, pairs=2)
    torch.manual_seed(1)
    bench.ensure(case, tmp_path, TINY)
    path = tmp_path / f"{kind}.json"
    record = json.loads(path.read_text())
    assert record["pairs"] == len(record["reached"]) == 2
    assert record["run_settings"]["steps"] == 1
    assert record["run_settings"]["seed"] == recipe.seed
    assert record["fingerprint"]["run"] == kind
    assert {p.name for p in (tmp_path / kind).iterdir()} >= {"config.json"}
    assert not (tmp_path / kind / "training.safetensors").exists()
    monkeypatch.setattr(bench, "train", None)
    bench.ensure(case, tmp_path, TINY)
    # Without the record the model is still there, and says the same again.
    path.unlink()
    monkeypatch.undo()
    bench.ensure(case, tmp_path, TINY)
    again = json.loads(path.read_text())
    assert again["fingerprint"]["weights"] == record["fingerprint"]["weights"]
    assert again["reached"] == record["reached"]


def test_an_interrupted_training_goes_on(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its hundredth step, GCBC ends with the weights of a run that was not."""
    models, recipe = sys.modules["control_models"], recipes(bench)["gcbc-seed-2"]
    config = TINY.model_copy(update={"steps": 102})
    models.train(recipe, tmp_path / "whole", config)
    save = models.Training.save

    def dying(training: Any, path: Path) -> None:
        save(training, path)
        raise InterruptedError

    monkeypatch.setattr(models.Training, "save", dying)
    with pytest.raises(InterruptedError):
        models.train(recipe, tmp_path / "cut", config)
    monkeypatch.undo()
    run, begun = models.Training.run, []

    def watched(training: Any) -> Iterator[Any]:
        begun.append(training.step)
        yield from run(training)

    monkeypatch.setattr(models.Training, "run", watched)
    models.train(recipe, tmp_path / "cut", config)
    assert begun == [100]
    whole, cut = (digest(models.load(recipe, tmp_path / n).model) for n in ("whole", "cut"))
    assert whole == cut
