"""Full disks: a command that does not fit says so in a line, spoils nothing, and goes on later."""

from __future__ import annotations

import ctypes
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
from PIL import Image
from safetensors.torch import load_file

from fuzz.calls import Outcome
from fuzz.children import learn, verdict
from fuzz.kills import JOBS, Job, begin, result, unequal, wait

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_ROOM = 1 << 28  # bytes in which everything fits
_DRAFTS = (".tmp", ".partial", ".unfinished")
DISKS = {
    **{name: JOBS[name] for name in ("train", "collect", "evaluate")},
    "convert": Job(("data", "convert", "{}/data.h5", "OUT")),
    # In the place of an earlier study.
    "study": Job(("study", "{}/run", "--data", "{}/data.h5", "--steps", "4", "--out", "OUT",
                  "--device", "cpu", "--force")),
}  # fmt: skip


def mount(folder: Path, size: int, *, again: bool = False) -> None:
    """A disk of `size` bytes at a folder, or that disk at another size."""
    option = f"{'remount,' if again else ''}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], check=True)


def own_mounts() -> bool:
    """Let no other process see what this one mounts; False where that is not allowed."""
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(_NEW_MOUNTS):
        return False
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True)
    return done.returncode == 0


def fuzz_disks(inputs: Path, *, seed: int) -> Iterator[Outcome]:
    """Each command on disks of random sizes up to what it needs, in turn, without end."""
    if not own_mounts():
        sys.stdout.write("disks: not run, as nothing can be mounted here: unshare -rm allows it\n")
        return
    drawn, disk = random.Random(seed), inputs.parent / "disk"
    disk.mkdir()
    wholes: dict[str, tuple[int, dict[str, object]]] = {}
    while True:
        for name, job in DISKS.items():
            if name not in wholes:
                mount(disk, _ROOM)
                try:
                    ends = wait(begin(job, inputs, disk / "out"), 600)
                    learn(inputs.parent)
                    if any(ended.status for ended in ends):
                        yield Outcome(name, "", "a large disk", "unclear", ends[0].said[-300:])
                        return
                    wholes[name] = shutil.disk_usage(disk).used, result(disk / "out")
                    if name == "study":
                        shutil.copytree(disk / "out", inputs.parent / "studied")
                finally:
                    subprocess.run(["umount", disk], check=True)
            yield _one(name, job, inputs, disk, drawn.random(), *wholes[name])


def _one(
    name: str, job: Job, inputs: Path, disk: Path, share: float, needs: int,
    wanted: dict[str, object],
) -> Outcome:  # fmt: skip
    out, earlier = disk / "out", inputs.parent / "studied"
    least = needs if name == "study" else 0  # the earlier one lies there
    size = least + int(share * needs)
    what = f"{size:,} of {needs:,} bytes"
    mount(disk, max(size, 4096))
    try:
        if name == "study":
            shutil.copytree(earlier, out)
        (ended,) = wait(begin(job, inputs, out), 600)
        told = ended.said[-300:]
        said = verdict(ended, str(disk))
        if ended.status and "No space left" not in told:
            said = f"unclear: {said}"
        if said not in ("clear", "other name", "legitimate"):
            return Outcome(name, "", what, said, told)
        for path in disk.rglob("*"):
            if path.suffix in _DRAFTS or broken(path):
                return Outcome(name, "", what, f"left: {path.relative_to(disk)}", told)
        mount(disk, _ROOM, again=True)
        if ended.status:
            again = job.again if not job.mark or (out / job.mark).is_file() else ()
            (ended,) = wait(begin(job, inputs, out, *again), 600)
            if ended.status:
                return Outcome(name, "", what, f"lost: {verdict(ended)}", ended.said[-300:])
        other = unequal(result(out), wanted)
        return Outcome(name, "", what, f"unequal: {', '.join(other)}" if other else said, told)
    finally:
        subprocess.run(["umount", disk], check=True)


def broken(path: Path) -> bool:
    """Whether a file is half of one."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".html":
            return "</html>" not in path.read_text(encoding="utf-8")
        elif path.suffix in (".png", ".gif"):
            Image.open(path).verify()
        elif path.is_file() and h5py.is_hdf5(path):
            with h5py.File(path, swmr=True) as file:
                return len(file["ep_len"]) == 0
    except (OSError, ValueError, SyntaxError):
        return True
    return False
