"""How many windows a second are read from disk, memory and plain h5py, and how small are they?

`--only speed` or `--only pictures` measures one of the two tables.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from harness import mebibytes, save
from matplotlib import cbook
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from worldmodel.apps.data.collecting import drawn
from worldmodel.data import BatchOrder, Episodes, HDF5Writer, Windows, loader, open_hdf5
from worldmodel.records import Batch
from worldmodel.worlds import open_world

T, FRAMESKIP, BATCH, LENGTH, WORKERS = 4, 5, 32, 60, 2
CASES = {64: 120, 224: 24}  # side of a frame: episodes
# Episodes of a source at a side; batches of a round.
SEEN, PARTS = {("Push-T", 64): 16, ("Push-T", 224): 8, ("photo", 224): 8}, 6
PACKINGS: dict[str, dict[str, str | int]] = {
    "uncompressed": {}, "gzip": {"compression": "gzip"}, "JPEG 95": {"jpeg": 95},
    "JPEG 90": {"jpeg": 90}, "JPEG 75": {"jpeg": 75},
}  # fmt: skip
ROUNDS, BATCHES = 3, {64: 40, 224: 12}


class PlainH5py(Dataset[Batch]):
    """One h5py read per frame, the file opened in each worker: a reader in ten lines."""

    def __init__(self, path: Path, windows: Windows) -> None:
        self.path, self.starts, self.file = path, windows._starts, None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Batch:
        import h5py

        if self.file is None:
            self.file = h5py.File(self.path, "r")
        first = int(self.starts[index])
        frames = [self.file["pixels"][first + t * FRAMESKIP] for t in range(T)]
        actions = self.file["action"][first : first + T * FRAMESKIP]
        return Batch(
            torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2),
            torch.from_numpy(actions).nan_to_num(0.0).view(T, -1),
        )


class Order(BatchOrder):
    """The same order as lists, for torch's own batching."""

    def __iter__(self) -> Iterable[list[int]]:  # type: ignore[override]
        return (index.tolist() for index in super().__iter__())


def write(path: Path, size: int, compression: str | None) -> None:
    """Random walks of smooth pictures: compressible, but not empty."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size, dtype=np.uint8)
    with HDF5Writer(path, compression=compression) as writer:
        for _ in range(CASES[size]):
            frames = np.empty((LENGTH, 3, size, size), np.uint8)
            frames[:] = ramp + rng.integers(0, 40, (LENGTH, 3, 1, 1), np.uint8)
            writer.write(frames, rng.normal(size=(LENGTH - 1, 2)))


def rate(batches: Iterable[Batch], warm: int = 4) -> float:
    """Windows per second, without the start of the workers."""
    count, began = 0, 0.0
    for step, batch in enumerate(batches):
        if step == warm:
            began = time.perf_counter()
        elif step > warm:
            count += len(batch.frames)
    return count / (time.perf_counter() - began)


def from_disk(path: Path, size: int) -> dict[str, float]:
    """Windows per second with two workers, best of interleaved rounds."""
    windows = Windows(open_hdf5(path), num_frames=T, frameskip=FRAMESKIP)
    best = {"ours": 0.0, "plain h5py": 0.0}
    for turn in range(ROUNDS):
        span = {"seed": turn, "stop": BATCHES[size]}
        ours = loader(windows, BatchOrder(len(windows), BATCH, **span), workers=WORKERS)
        plain = DataLoader(
            PlainH5py(path, windows),
            batch_sampler=Order(len(windows), BATCH, **span),  # type: ignore[arg-type]
            num_workers=WORKERS,
        )
        best["ours"] = max(best["ours"], rate(ours))
        best["plain h5py"] = max(best["plain h5py"], rate(plain))
    return best


def in_process(episodes: Episodes, index: list[Tensor]) -> float:
    """Frames per second of batches cut in this process, best round."""
    windows = Windows(episodes, num_frames=T, frameskip=FRAMESKIP)
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        frames = sum(windows.batch(part).frames.shape[0] * T for part in index)
        best = max(best, frames / (time.perf_counter() - began))
    return best


def panned(num: int, size: int) -> list[Any]:
    """A camera that moves over matplotlib's photo of Grace Hopper: episodes for a writer."""
    photo = plt.imread(cbook.get_sample_data("grace_hopper.jpg")).transpose(2, 0, 1)
    rng, found = np.random.default_rng(0), []
    room = np.array(photo.shape[1:]) - size
    for _ in range(num):
        actions = rng.integers(-4, 5, (LENGTH, 2))
        places = np.clip(rng.integers(0, room) + np.vstack([[0, 0], actions]).cumsum(0), 0, room)
        frames = [photo[:, y : y + size, x : x + size] for y, x in places]
        found.append((np.stack(frames), actions, places))
    return found


def pictures() -> None:
    """Drawn and photographed frames in every packing: size, time of reading, what is lost."""
    results: list[dict[str, object]] = []
    rows: list[list[str | int | float | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        for (source, size), num in SEEN.items():
            if source == "photo":
                found = panned(num, size)
            else:
                world = open_world("push-t", image_size=size)
                found = list(drawn(world, "pusher", num, length=LENGTH, seed=0))
            cut = {}
            for name, packing in PACKINGS.items():
                path = Path(folder) / f"{source}{size}-{name}.h5"
                with HDF5Writer(path, **packing) as writer:  # type: ignore[arg-type]
                    for episode in found:
                        writer.write(*episode)
                cut[name] = Windows(open_hdf5(path), num_frames=T, frameskip=FRAMESKIP)
            order = list(BatchOrder(len(cut["gzip"]), BATCH, seed=0, stop=PARTS))
            seconds = {name: [] for name in cut}
            for _ in range(ROUNDS):
                for name, windows in cut.items():
                    began = time.thread_time()
                    for part in order:
                        windows.batch(part)
                    seconds[name].append(time.thread_time() - began)
            exact = [cut["uncompressed"].batch(part).frames.float() for part in order]
            whole = (Path(folder) / f"{source}{size}-uncompressed.h5").stat().st_size
            for name, windows in cut.items():
                pairs = zip(order, exact, strict=True)
                off = torch.stack([(windows.batch(i).frames - x).abs() for i, x in pairs])
                held = (Path(folder) / f"{source}{size}-{name}.h5").stat().st_size
                record: dict[str, object] = {
                    "source": source, "packing": name, "size": size, "bytes": held,
                    "of_uncompressed": held / whole,
                    "windows_per_second": BATCH * PARTS / min(seconds[name]),
                    "mean_error": float(off.mean()), "above_8": float((off > 8).float().mean()),
                }  # fmt: skip
                results.append(record)
                rows.append([
                    source, name, size, mebibytes(held), f"{held / whole:.3f}",
                    round(BATCH * PARTS / min(seconds[name])), f"{record['mean_error']:.2f}",
                    f"{record['above_8']:.2%}",
                ])  # fmt: skip
    save(
        "data_pictures",
        f"Frames on disk, drawn by Push-T or cut from a photo: size of the file, windows of {T} "
        "frames a second of one processor's time, and how far values of 0…255 are from the exact",
        results,
        columns=(
            "frames",
            "stored as",
            "px",
            "file",
            "of uncompressed",
            "windows",
            "mean error",
            "off by > 8",
        ),
        rows=rows,
        note="Best of three interleaved rounds in this process, files in the page cache.",
    )


def speed() -> None:
    """Windows per second of every source."""
    results: list[dict[str, object]] = []
    rows: list[list[str | int | float | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in CASES:
            for compression in (None, "gzip"):
                path = Path(folder) / f"{size}-{compression}.h5"
                write(path, size, compression)
                found = from_disk(path, size)
                ratio = found["ours"] / found["plain h5py"]
                case = f"HDF5, {compression or 'uncompressed'}, {WORKERS} workers"
                results.append({"case": case, "size": size, "windows_per_second": found})
                cells = [round(found["ours"]), round(found["plain h5py"]), round(ratio, 2)]
                rows.append([case, size, *cells])
            episodes = open_hdf5(Path(folder) / f"{size}-None.h5")
            order = BatchOrder(len(Windows(episodes)), BATCH, seed=0, stop=BATCHES[size])
            index = list(order)
            for case, source in (("file mapped", episodes), ("in memory", episodes.in_memory())):
                speed = in_process(source, index)
                results.append({"case": case, "size": size, "frames_per_second": speed})
                rows.append([f"{case}, this process", size, round(speed / T), None, None])
    save(
        "data",
        "Windows per second (4 frames each, batch 32), files in the page cache",
        results,
        columns=["source", "px", "ours", "plain h5py per frame", "ratio"],
        rows=rows,
        note="Best of three interleaved rounds; multiply by 4 for frames per second.",
    )


def main() -> None:
    """Measure both tables, or one, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("speed", "pictures"))
    only = parser.parse_args().only
    for table in (speed, pictures):
        if only in (None, table.__name__):
            table()


if __name__ == "__main__":
    main()
