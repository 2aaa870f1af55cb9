"""What does SIGReg add to a training step: of a world model, of a projector with a large batch?"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from bench_sigreg import processor_time, published
from harness import save, speedup
from torch import Tensor, nn

from sigreg import SIGReg, trapezoid_rule
from worldmodel import Batch, WorldModel, jepa_loss, presets

FRAMES = 4
Regularizer = Callable[[Tensor], Tensor]
Objective = Callable[[Regularizer], Tensor]


def training_step(model: nn.Module, objective: Callable[[], Tensor]) -> Callable[[], None]:
    """One step: loss, gradients, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

    def step() -> None:
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()

    return step


def world_model(model: WorldModel, side: int, size: int) -> Objective:
    """The training objective of a world model on a batch of windows."""
    frames = torch.randint(256, (size, FRAMES, 3, side, side), dtype=torch.uint8)
    batch = Batch(frames=frames, actions=torch.randn(size, FRAMES, 10))
    return lambda regularizer: jepa_loss(model, batch, regularizer).total


def projector(model: nn.Module, size: int) -> Objective:
    """Two views of features that an encoder has left, drawn together behind a projector."""
    views = torch.randn(2 * size, 512)

    def objective(regularizer: Regularizer) -> Tensor:
        z = model(views).view(2, size, -1)
        return (z[0] - z[1]).square().mean() + 0.05 * regularizer(z)

    return objective


def main() -> None:
    """LeWM at its published size, the demo's model, a projector: without, the formula, ours."""
    torch.manual_seed(0)
    rule = trapezoid_rule().to(torch.zeros(()))
    regularizers: dict[str, Regularizer] = {
        "without": lambda z: z.new_zeros(()),
        "published": lambda z: published(z, rule),
        "fused": SIGReg(backend="cpu"),
        "compiled": SIGReg(backend="cpp"),
    }
    lewm, small = presets.lewm(), presets.small()
    head = nn.Sequential(
        nn.Linear(512, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 512)
    )
    results, rows = [], []
    for name, model, objective, rounds in (
        ("LeWM, 18 million parameters, batch 4", lewm, world_model(lewm, 224, 4), 5),
        ("the demo's model, batch 64", small, world_model(small, 64, 64), 9),
        ("a projector alone, 512 → 2048 → 512, two views of 4096", head, projector(head, 4096), 3),
    ):
        calls = {
            kind: training_step(model, functools.partial(objective, regularizer))
            for kind, regularizer in regularizers.items()
        }
        times = processor_time(calls, rounds)
        added = {
            kind: speedup(times, of="without", over=kind).median - 1
            for kind in regularizers
            if kind != "without"
        }
        record: dict[str, object] = {"model": name}
        record |= {f"{kind}_seconds": timing.record() for kind, timing in times.items()}
        results.append(record | {f"{kind}_adds": share for kind, share in added.items()})
        rows.append([name, *(str(timing) for timing in times.values())])
        rows[-1] += [f"{share:+.1%}" for share in added.values()]
    save(
        "sigreg_training",
        f"A training step, float32, windows of {FRAMES} frames for the world models: without a "
        "regularizer, with the published formula, with the fused one in plain torch, and compiled; "
        "M = 1024, K = 17; processor time of one thread.",
        results,
        columns=("model", *regularizers, *(f"{k} adds" for k in list(regularizers)[1:])),
        rows=rows,
        note="Medians and quartiles of interleaved rounds; what is added, round by round.",
    )


if __name__ == "__main__":
    main()
