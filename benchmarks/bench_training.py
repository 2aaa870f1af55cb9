"""What does a training step cost in time and memory, with its options and beside plain modules?

python benchmarks/bench_training.py                 both tables
python benchmarks/bench_training.py accumulate      a step in parts
python benchmarks/bench_training.py plain           beside plain modules; minutes, a compiler
python benchmarks/bench_training.py plain --tiny    tries that out, and writes nothing
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from bench_sigreg import processor_time
from harness import interleave, mebibytes, peak_memory, save, speedup
from plain_lewm import PlainLeWM, plain_step
from torch import Tensor

from sigreg import SIGReg
from worldmodel import Batch, CausalPredictor, ViTEncoder, WorldModel, jepa_loss, presets
from worldmodel.apps.train import Recipe, Training
from worldmodel.data import Episodes, Windows

WINDOWS, FRAMES, SIDE, ROUNDS = 4, 4, 224, 3
PARTS = (1, 2, 4)
PLAIN = 8  # windows of a step beside plain modules


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


def in_parts() -> None:
    """LeWM at its published size, in float32."""
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


def steps(model: WorldModel, windows: Windows, **options: object) -> Callable[[], object]:
    """The steps of `worldmodel train` on a copy of the model."""
    recipe = Recipe(steps=10**6, batch_size=PLAIN, precision="float32")
    training = Training(copy.deepcopy(model), windows, recipe, **options)  # type: ignore[arg-type]
    every = training.run()
    return lambda: next(every)


def check(model: WorldModel, plain: PlainLeWM, batch: Batch) -> None:
    """Refuse to time a twin that computes other numbers."""
    found: list[list[Tensor]] = []
    for one in (model, plain):
        one.eval()
        actions = one.action_encoder(batch.actions[:, :-1])
        z = one.encoder(batch.frames)
        found.append([z, one.predictor(z[:, :-1], actions)])
        one.train()
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def beside_plain(tiny: bool) -> None:
    """Our step, compiled and in parts, and that of plain modules."""
    side, depth = (28, 1) if tiny else (SIDE, 12)
    model, plain = presets.lewm(image_size=side), PlainLeWM(side, depth, depth // 2 or 1)
    if tiny:
        model.encoder = ViTEncoder(image_size=side, depth=depth)
        model.predictor = CausalPredictor(depth=1)
    plain.load_state_dict(model.state_dict())
    rows = PLAIN + FRAMES * 5
    frames = torch.randint(256, (rows, 3, side, side), dtype=torch.uint8)
    windows = Windows(Episodes(frames, torch.randn(rows, 2), torch.tensor([rows])))
    batch = windows.batch(torch.arange(PLAIN))
    check(model, plain, batch)
    calls = {
        "plain modules": plain_step(plain, batch, Recipe().weight),
        "ours": steps(model, windows),
        "ours, accumulate=2": steps(model, windows, accumulate=2),
        "ours, accumulate=4": steps(model, windows, accumulate=4),
        "ours, compile": steps(model, windows, compile=True),
    }
    memory = {name: peak_memory(call) for name, call in calls.items()}
    one = processor_time(calls, ROUNDS)
    torch.set_num_threads(2)
    two = interleave(calls, rounds=ROUNDS, warmup=1)
    results, table = [], []
    for name in calls:
        share = memory[name] / memory["plain modules"]
        record: dict[str, object] = {"case": name, "peak_bytes": memory[name]}
        row, all_times = [name, mebibytes(memory[name]), f"{share:.2f}"], (("1", one), ("2", two))
        for threads, times in all_times:
            ratio = 1 / speedup(times, of=name, over="plain modules").median
            record[f"seconds_{threads}"] = times[name].record()
            record[f"time_ratio_{threads}"] = ratio
            row += [str(times[name]), f"{ratio:.2f}"]
        results.append({**record, "memory_ratio": share})
        table.append(row)
    if tiny:
        print(*table, sep="\n")
        return
    save(
        "training_step",
        f"A training step of LeWM (batch {PLAIN} × {FRAMES} frames of {SIDE} px, float32) by "
        "`worldmodel train` and by plain modules with F.scaled_dot_product_attention",
        results,
        columns=("step", "peak memory", "of plain", "processor time, one thread", "of plain",
                 "time, two threads", "of plain"),
        rows=table,
        note="Most bytes of tensors beyond those before the step. Medians and quartiles of "
        "interleaved rounds; ratios of times are round by round. The twin has our weights.",
    )  # fmt: skip


def main() -> None:
    """Run the tables that the words name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", nargs="?", choices=("accumulate", "plain"))
    parser.add_argument("--tiny", action="store_true", help="small sizes; writes nothing")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.table != "plain":
        in_parts()
    if arguments.table != "accumulate":
        beside_plain(arguments.tiny)


if __name__ == "__main__":
    main()
