"""Does LeWM at its published size compute the same in onnxruntime, at sizes not traced with?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor, nn

from planners import CEM, Bounds, planning_step
from worldmodel import WorldModel, presets
from worldmodel.export import PlanningStep, export_onnx

TOLERANCE = 1e-4
HORIZON, ELITES, SAMPLES, FRAMES = 5, 30, 300, 3
UPDATE = planning_step(CEM(SAMPLES, ELITES), Bounds(-2.0, 2.0))


def stirred() -> WorldModel:
    """Fresh weights whose gates are open: as released, AdaLN starts closed and hides its block."""
    torch.manual_seed(0)
    model = presets.lewm()
    for name, weight in model.named_parameters():
        if "modulation" in name:
            nn.init.normal_(weight, std=0.05)
    return model.eval()


def cases(model: WorldModel) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
    """File -> what it must compute, and inputs of another size than its example's."""
    D, A = model.predictor.dim, model.action_encoder.action_dim
    frames = torch.randint(0, 256, (FRAMES, 3, 224, 224), dtype=torch.uint8)
    known = {
        "z": torch.randn(1, 1, D),
        "goal": torch.randn(1, D),
        "mean": torch.randn(1, HORIZON, A),
        "std": torch.rand(1, HORIZON, A) + 0.1,
        "noise": torch.randn(1, SAMPLES, HORIZON, A),
    }
    history = model.predictor.history
    sequence = {"z": torch.randn(5, history, D), "actions": torch.randn(5, history, A)}
    return {
        "encoder": (model.encoder, {"frames": frames}),
        "predictor": (Predict(model), sequence),
        "planning_step": (PlanningStep(model, UPDATE), known),
    }


class Predict(nn.Module):
    """`model.predict` as a forward."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """[B, T, D] and [B, T, A] -> [B, T, D]."""
        return self.model.predict(z, actions)


@torch.no_grad()
def main() -> None:
    """Export, run, compare."""
    import onnxruntime

    model = stirred()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = export_onnx(model, folder, update=UPDATE, horizon=HORIZON, least_samples=ELITES)
        for file, (name, (module, inputs)) in zip(files, cases(model).items(), strict=True):
            assert Path(file).stem == name
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            found = session.run(None, {k: v.numpy() for k, v in inputs.items()})
            wanted = module(*inputs.values())
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            for output, value, other in zip(session.get_outputs(), wanted, found, strict=True):
                largest = value.abs().max().item()
                error = (value - torch.from_numpy(other)).abs().max().item()
                # Costs are sums of 192 squares: of the largest, where that exceeds 1.
                if not error <= TOLERANCE * max(1.0, largest):
                    raise SystemExit(f"{name} gives {output.name} with an error of {error:.1e}")
                results.append({
                    "file": file.name,
                    "bytes": file.stat().st_size,
                    "output": output.name,
                    "shape": list(value.shape),
                    "largest_value": largest,
                    "error": error,
                })  # fmt: skip
    harness.save(
        "export",
        "LeWM at its published size in onnxruntime against torch, largest difference",
        results,
        columns=("file", "size", "output", "shape", "largest value", "largest difference"),
        rows=[
            (
                r["file"],
                harness.mebibytes(r["bytes"]),
                r["output"],
                "×".join(map(str, r["shape"])),
                f"{r['largest_value']:.3g}",
                f"{r['error']:.1e}",
            )
            for r in results
        ],
        note="Random weights with open gates.",
    )


if __name__ == "__main__":
    main()
