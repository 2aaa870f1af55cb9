"""What do the options of a training step cost in time, and what do they save in memory?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_sigreg import processor_time
from harness import mebibytes, peak_memory, save, speedup

from sigreg import SIGReg
from worldmodel import Batch, WorldModel, jepa_loss, presets

WINDOWS, FRAMES, SIDE, ROUNDS = 4, 4, 224, 3
PARTS = (1, 2, 4)


def training_step(model: WorldModel, parts: int) -> Callable[[], None]:
    """Loss, gradients, AdamW on one batch, whose frames are embedded in parts."""
    frames = torch.randint(256, (WINDOWS, FRAMES, 3, SIDE, SIDE), dtype=torch.uint8)
    batch = Batch(frames=frames, actions=torch.randn(WINDOWS, FRAMES, 10))
    optimizer, regularizer = torch.optim.AdamW(model.parameters(), lr=5e-5), SIGReg()

    def step() -> None:
        model.encoder.parts = parts
        optimizer.zero_grad()
        jepa_loss(model, batch, regularizer).total.backward()
        optimizer.step()

    return step


def main() -> None:
    """LeWM at its published size, in float32."""
    torch.manual_seed(0)
    model = presets.lewm()
    calls = {f"accumulate={parts}": training_step(model, parts) for parts in PARTS}
    memory = {name: peak_memory(call) for name, call in calls.items()}
    times, one = processor_time(calls, ROUNDS), "accumulate=1"
    results, rows = [], []
    for name, timing in times.items():
        slower = 1 / speedup(times, of=name, over=one).median
        share = memory[name] / memory[one]
        record = {"case": name, "seconds": timing.record(), "peak_bytes": memory[name]}
        results.append({**record, "time_ratio": slower, "memory_ratio": share})
        rows.append([name, mebibytes(memory[name]), f"{share:.2f}", str(timing), f"{slower:.2f}"])
    save(
        "training",
        f"A training step of LeWM (batch {WINDOWS} × {FRAMES} frames of {SIDE} px, float32): most "
        "bytes of tensors beyond those before it, and processor time of one thread",
        results,
        columns=("step", "peak memory", "of one part's", "time", "of one part's"),
        rows=rows,
        note="Medians and quartiles of interleaved rounds; ratios of times are round by round.",
    )


if __name__ == "__main__":
    main()
