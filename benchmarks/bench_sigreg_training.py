"""What does SIGReg add to a training step of a world model?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_sigreg import processor_time, published
from harness import save, speedup
from torch import Tensor

from sigreg import SIGReg, trapezoid
from worldmodel import Batch, WorldModel, jepa_loss, presets

FRAMES = 4


def training_step(
    model: WorldModel, batch: Batch, regularizer: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """One step: loss, gradients, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

    def step() -> None:
        optimizer.zero_grad()
        jepa_loss(model, batch, regularizer).total.backward()
        optimizer.step()

    return step


def main() -> None:
    """LeWM at its published size and the demo's model: without, with the formula, with ours."""
    torch.manual_seed(0)
    rule = trapezoid().to(torch.zeros(()))
    regularizers = {
        "without": lambda z: z.new_zeros(()),
        "published": lambda z: published(z, rule),
        "fused": SIGReg(),
    }
    results, rows = [], []
    for name, model, side, size, rounds in (
        ("LeWM, 18 million parameters", presets.lewm(), 224, 4, 5),
        ("the demo's model", presets.small(), 64, 64, 9),
    ):
        frames = torch.randint(256, (size, FRAMES, 3, side, side), dtype=torch.uint8)
        batch = Batch(frames=frames, actions=torch.randn(size, FRAMES, 10))
        calls = {kind: training_step(model, batch, f) for kind, f in regularizers.items()}
        times = processor_time(calls, rounds)
        added = {
            kind: speedup(times, of="without", over=kind).median - 1
            for kind in ("published", "fused")
        }
        record: dict[str, object] = {"model": name, "batch": size, "frames": FRAMES}
        record |= {f"{kind}_seconds": timing.record() for kind, timing in times.items()}
        results.append(record | {f"{kind}_adds": share for kind, share in added.items()})
        rows.append(
            [
                f"{name}, batch {size}",
                *(str(timing) for timing in times.values()),
                *(f"{share:+.1%}" for share in added.values()),
            ]
        )
    save(
        "sigreg_training",
        f"A training step on windows of {FRAMES} frames, float32: without a regularizer, with the "
        "published formula, with the fused one; M = 1024, K = 17; processor time of one thread.",
        results,
        columns=("model", "without", "published", "fused", "published adds", "fused adds"),
        rows=rows,
        note="Medians and quartiles of interleaved rounds; what is added, round by round.",
    )


if __name__ == "__main__":
    main()
