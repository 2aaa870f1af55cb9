"""Who the processes of a command are, and that they meet, agree and hand over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

from worldmodel.apps.ranks import ALONE, Launched, first_host, joined, launched

NAMES = (
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST",
    "SLURM_JOB_NODELIST", "SLURM_NODELIST", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_SIZE", "PMI_RANK",
    "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever started the tests is not there for them."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def said(monkeypatch: pytest.MonkeyPatch, **words: object) -> Launched:
    """What a process believes that is told these words."""
    for name, value in words.items():
        monkeypatch.setenv(name, str(value))
    return launched()


def test_a_process_that_nobody_launched_is_alone() -> None:
    """No variable, no group, and every gathering is one's own word."""
    assert launched() == Launched(0, 1, 0, "localhost", 29500)
    with joined("cpu") as ranks:
        assert ranks == ALONE
        assert ranks.first
        assert ranks.gather("a") == ["a"]
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({"WORLD_SIZE": 1, "SLURM_NTASKS": 4}, Launched()),
        (
            {"WORLD_SIZE": 4, "RANK": 3, "LOCAL_RANK": 1, "MASTER_ADDR": "a", "MASTER_PORT": 7},
            Launched(3, 4, 1, "a", 7),
        ),
        (
            {"SLURM_NTASKS": 8, "SLURM_PROCID": 5, "SLURM_LOCALID": 1, "SLURM_JOB_ID": 123456,
             "SLURM_STEP_ID": 2, "SLURM_JOB_NODELIST": "gpu[07-09,12],cpu1"},
            Launched(5, 8, 1, "gpu07", 15_000 + 123_458 % 20_000),
        ),
        ({"SLURM_NTASKS": 2, "SLURM_PROCID": 1}, Launched(1, 2, 1, "localhost", 29500)),
        (
            {"OMPI_COMM_WORLD_SIZE": 2, "OMPI_COMM_WORLD_RANK": 1, "OMPI_COMM_WORLD_LOCAL_RANK": 1,
             "OMPI_COMM_WORLD_LOCAL_SIZE": 2, "SLURM_NTASKS": 1},
            Launched(1, 2, 1, "localhost", 29500),
        ),
        ({"PMI_SIZE": 2, "PMI_RANK": 1, "MPI_LOCALRANKID": 1}, Launched(1, 2, 1)),
    ],
)  # fmt: skip
def test_every_launcher_is_understood(
    words: dict[str, object], wanted: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun before MPI before Slurm; the master is the first machine of Slurm's list."""
    assert said(monkeypatch, **words) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"WORLD_SIZE": 2}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, got 'two'"),
        ({"WORLD_SIZE": 2, "RANK": 2}, "RANK must be below WORLD_SIZE = 2, got 2"),
        (
            {"SLURM_NTASKS": 2, "SLURM_PROCID": 0, "SLURM_JOB_ID": 1},
            "Slurm granted 2 tasks, but srun did not start this process: put srun in front",
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": 4, "OMPI_COMM_WORLD_RANK": 0, "OMPI_COMM_WORLD_LOCAL_SIZE": 2},
            "MASTER_ADDR must name the machine of rank 0",
        ),
    ],
)
def test_words_that_do_not_agree_are_refused(
    words: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, instead of waiting for processes that never come."""
    with pytest.raises(ValueError, match=message):
        said(monkeypatch, **words)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"), ("a,b", "a"), ("n[3,5]", "n3"), ("x-y[001]", "x-y001"),
        ("gpu[07-09,12],cpu1", "gpu07"), ("r[1-2]-n[3-4],z", "r1-n3"),
    ],
)  # fmt: skip
def test_the_first_of_slurms_machines(nodes: str, host: str) -> None:
    """Ranges and lists in brackets, as scontrol writes them."""
    assert first_host(nodes) == host


def test_a_device_of_ones_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes have a GPU each, or the CPU."""
    monkeypatch.setattr("worldmodel.apps.ranks.device_of", lambda name: name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match='--device must be "cpu" or "cuda" on 2 processes'):
        joined("cuda:1").__enter__()


def test_a_process_tries_no_gpu_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GPU is chosen before the device is tried: no memory is taken of another's."""
    done: list[object] = []

    def tried(name: str) -> str:
        done.append(name)
        raise ValueError("enough")

    monkeypatch.setattr("worldmodel.apps.ranks.device_of", tried)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="enough"):
        joined("cuda").__enter__()
    assert done == [1, "cuda"]


SCRIPT = """
import sys, torch
from worldmodel.apps.ranks import joined
with joined("cpu"):
  for turn in range(2):
    with joined("cpu") as ranks:
        words = ranks.gather("ä" * ranks.rank)
        assert words == ["", "ä", "ää"], words
        if ranks.first:
            got = [ranks.receive(torch.zeros(3), rank) for rank in (1, 2)]
            assert [g.tolist() for g in got] == [[0, 1, 2], [0, 2, 4]]
        else:
            ranks.send(torch.arange(3.0) * ranks.rank)
        assert float(ranks.mean(torch.tensor(float(ranks.rank)))) == 1.0
  with joined("cpu") as ranks:
    with ranks.together():
        pass
    with ranks.together():
        if ranks.rank > 0:
            raise ValueError(f"rank {ranks.rank} says no")
print("not reached")
"""


THREADS = """
import atexit, os, torch
from worldmodel.apps.ranks import joined, shared

def gloo():
    names = (open(f"/proc/self/task/{n}/comm").read() for n in os.listdir("/proc/self/task"))
    return sum("gloo" in name for name in names)

atexit.register(lambda: print(gloo()))

def main():
    with joined("cpu") as ranks:
        model = shared(torch.nn.Linear(2, 2), ranks)
        model(torch.ones(1, 2)).sum().backward()
        print(gloo() > 0)

main()
"""


def processes(script: str, size: int) -> tuple[list[int | None], list[tuple[bytes, bytes]]]:
    """The exit statuses of Slurm's tasks that run a script, and what they wrote."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    own = {"SLURM_NTASKS": str(size), "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | own | {"SLURM_PROCID": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(size)
    ]  # fmt: skip
    told = [rank.communicate(timeout=120) for rank in ranks]
    return [rank.returncode for rank in ranks], told


@pytest.mark.slow
def test_three_processes_of_slurm_meet_agree_and_hand_over() -> None:
    """They form one group, whatever joins it; where some fail all end, and one of them says why."""
    codes, told = processes(SCRIPT, 3)
    assert codes == [2, 1, 2], told
    assert all(out == b"" for out, _ in told)
    assert b"rank 1 says no" in told[1][1]
    assert b"Traceback" not in told[0][1] + told[2][1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_the_groups_threads_end_before_the_interpreter() -> None:
    """A thread of gloo that frees a tensor while Python ends would abort the process."""
    codes, told = processes(THREADS, 2)
    assert codes == [0, 0], told
    assert [out.split() for out, _ in told] == [[b"True", b"0"]] * 2
