"""How many windows a second are read from disk, from memory, and with plain h5py?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from harness import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from worldmodel.data import BatchOrder, Episodes, HDF5Writer, Windows, loader, open_hdf5
from worldmodel.records import Batch

T, FRAMESKIP, BATCH, LENGTH, WORKERS = 4, 5, 32, 60, 2
CASES = {64: 120, 224: 24}  # side of a frame: episodes
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


def main() -> None:
    """Measure every case and save."""
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


if __name__ == "__main__":
    main()
