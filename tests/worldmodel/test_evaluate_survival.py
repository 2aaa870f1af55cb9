"""An evaluation that is stopped anywhere ends as if it had not been; processes share it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodel import presets
from worldmodel.apps.cli import main
from worldmodel.apps.evaluate.result import Log, Mark, Tried
from worldmodel.apps.folder import locked
from worldmodel.apps.runs import save_run
from worldmodel.data import ActionScale

SEARCH = ["--samples", "6", "--elites", "3", "--iterations", "2", "--horizon", "2"]
MARK = Mark(manifest="m", weights="w")
MORE = ["--seeds", "2", "--batch-size", "3", "--films", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, another, a manifest of eight pairs, another, and a whole evaluation."""
    out = tmp_path_factory.mktemp("survival")
    for seed, name in enumerate(("run", "other")):
        torch.manual_seed(seed)
        model = presets.small(2 * 3, image_size=16, dim=8)
        with torch.no_grad():
            for block in model.predictor.blocks:
                block.modulation.weight.normal_(0, 0.5)
        scale = ActionScale(torch.zeros(2), torch.full((2,), 0.6))
        save_run(
            model, out / name, scale=scale, frameskip=3, world="two-room", trained_on=[],
            held_out=[], settings={},
        )  # fmt: skip
    for seed, name in enumerate(("m.json", "n.json")):
        words = ["--pairs", "8", "--offset", "6", "--budget", "7", "--seed", str(seed)]
        assert main(["manifest", "--env", "two-room", *words, "--out", str(out / name)]) == 0
    assert main(words_of(out, out / "whole")) == 0
    return out


def words_of(
    folder: Path, out: Path, *more: str, run: str = "run", of: str = "m.json"
) -> list[str]:
    """The command that evaluates a run on a manifest."""
    task = ["--manifest", str(folder / of), "--out", str(out)]
    return ["evaluate", str(folder / run), *task, *SEARCH, *MORE, *more]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The single error line of a command that must end with status 2."""
    capsys.readouterr()
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def found(out: Path) -> dict[str, Any]:
    """A result, its seconds left out."""
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result.pop("planning_seconds")["decisions"] > 0
    return result


def names(out: Path) -> set[str]:
    """Files of a folder."""
    return {path.name for path in out.iterdir()}


def begun(folder: Path, out: Path, lines: int) -> Path:
    """A copy of the whole evaluation as it was when that many lines were written."""
    shutil.copytree(folder / "whole", out)
    for name in ("index.html", "result.json"):
        (out / name).unlink()
    log = out / "outcomes-0.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:lines]))
    return out


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each batch holds that is tried from now on."""
    tried: list[int] = []
    write = Log.write

    def counting(self: Log, some: Any) -> None:
        tried.append(len(some))
        write(self, some)

    monkeypatch.setattr(Log, "write", counting)
    return tried


@pytest.mark.parametrize(
    ("lines", "torn"), [(0, ""), (0, "9"), (1, "-1"), (9, ""), (9, "1"), (30, "-1"), (48, "-1")]
)
def test_a_kill_at_any_pair_loses_that_pair_alone(
    folder: Path, tmp_path: Path, lines: int, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole lines are kept, one cut off anywhere counts for nothing, and the rest is tried."""
    out = begun(folder, tmp_path / "out", lines)
    whole = (folder / "whole" / "outcomes-0.jsonl").read_bytes().splitlines(keepends=True)
    if torn:
        with (out / "outcomes-0.jsonl").open("ab") as file:
            file.write(whole[lines][: int(torn)])
    tried = counted(monkeypatch)
    assert main(words_of(folder, out)) == 0
    # A line for the mark; then 8 pairs, twice planned and random, once no-op and expert.
    assert sum(tried) == 48 - max(0, lines - 1)
    assert found(out) == found(folder / "whole")
    again = (out / "outcomes-0.jsonl").read_bytes().splitlines()
    assert len(again) == len(whole) == 49


def test_ctrl_c_keeps_what_was_tried(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 130, the outcomes so far, and the same end by the same command."""
    out, write = tmp_path / "out", Log.write

    def interrupted(self: Log, some: Any) -> None:
        write(self, some)
        if len(self.tried) > 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(Log, "write", interrupted)
    assert main(words_of(folder, out)) == 130
    assert names(out) == {"evaluate.json", "outcomes-0.jsonl"}
    monkeypatch.undo()
    tried = counted(monkeypatch)
    assert main(words_of(folder, out)) == 0
    assert sum(tried) == 48 - 11
    assert found(out) == found(folder / "whole")


def test_an_interruption_before_the_first_pair_leaves_no_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was tried, so the corrected command can have the name."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("worldmodel.apps.evaluate.trial.tries", stopped)
    assert main(words_of(folder, tmp_path / "out")) == 130
    assert not (tmp_path / "out").exists()


def test_a_kill_while_films_are_made_loses_no_result(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The result is whole before the first picture of it; the same command makes the pictures."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr("worldmodel.apps.evaluate.trial.film_attempts", killed)
    assert main(words_of(folder, out, "--films", "1")) == 130
    assert names(out) == {"evaluate.json", "outcomes-0.jsonl", "result.json"}
    written = (out / "result.json").read_bytes()
    monkeypatch.undo()
    tried = counted(monkeypatch)
    assert main(words_of(folder, out, "--films", "1")) == 0
    assert (out / "result.json").read_bytes() == written
    assert tried == []
    reached = [one["success"] for one in json.loads(written)["outcomes"] if one["repeat"] == 0]
    films = {name for name, kind in (("successes", True), ("failures", False)) if kind in reached}
    assert {Path(name).stem for name in names(out)} >= films | {"index"}
    assert "must not hold a result yet" in refused(capsys, *words_of(folder, out))


@pytest.mark.parametrize(
    ("words", "other", "part"),
    [
        (["--cost", "last"], {}, "other settings: cost nearest → last"),
        (["--seeds", "3", "--batch-size", "4"], {}, "batch_size 3 → 4, seeds 2 → 3"),
        (["--protocol", "historical"], {}, "protocol held-out → historical"),
        ([], {"of": "n.json"}, "has other manifest"),
        ([], {"run": "other"}, "has other weights"),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused_by_name(
    words: list[str], other: dict[str, str], part: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What differs is named, and what was there stays."""
    out = begun(folder, tmp_path / "out", 9)
    before = {path: path.read_bytes() for path in out.iterdir()}
    line = refused(capsys, *words_of(folder, out, *words, **other))
    assert part in line
    assert line.startswith("worldmodel evaluate: error: --out must not hold another evaluation yet")
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_what_decides_no_outcome_may_change(folder: Path, tmp_path: Path) -> None:
    """The run may lie elsewhere, and more films be wanted."""
    shutil.copytree(folder / "run", tmp_path / "moved")
    shutil.copy(folder / "m.json", tmp_path / "m.json")
    out = begun(folder, tmp_path / "out", 9)
    assert main(words_of(tmp_path, out, "--films", "1", run="moved")) == 0
    assert found(out)["outcomes"] == found(folder / "whole")["outcomes"]


def test_one_process_at_a_time(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second command is told who writes to the folder."""
    out = begun(folder, tmp_path / "out", 9)
    with locked(out / ".lock", str(out)):
        line = refused(capsys, *words_of(folder, out))
    assert f"{out} is being written by process {os.getpid()} on " in line
    assert main(words_of(folder, out)) == 0


@pytest.mark.parametrize(
    "text", ["{", "[]", "x: [", '{"nonsense": 1}', '{"films": -1}', "[" * 10**5]
)
def test_foreign_settings_are_one_line(
    text: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the file."""
    out = begun(folder, tmp_path / "out", 9)
    (out / "evaluate.json").write_text(text)
    line = refused(capsys, *words_of(folder, out))
    assert f"{out / 'evaluate.json'} is damaged: " in line


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"{}", b"\x00\xff", b"[" * 10**5, b'{"pair": -1}', b"null", b"9" * 5000, b""],
)
@pytest.mark.parametrize("place", [0, 3])
def test_foreign_outcomes_are_one_line(
    line: bytes, place: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that is whole and none of ours is no torn one: the message names the file."""
    out = begun(folder, tmp_path / "out", 9)
    lines = (out / "outcomes-0.jsonl").read_bytes().splitlines(keepends=True)
    lines[place] = line + b"\n"
    (out / "outcomes-0.jsonl").write_bytes(b"".join(lines))
    told = refused(capsys, *words_of(folder, out))
    assert f"{out / 'outcomes-0.jsonl'} is damaged, remove it" in told


def test_outcomes_are_never_written_through_a_link(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link in the folder does not lead a command to somebody else's file."""
    out, other = begun(folder, tmp_path / "out", 9), tmp_path / "other.txt"
    other.write_text("mine")
    (out / "outcomes-0.jsonl").unlink()
    (out / "outcomes-0.jsonl").symlink_to(other)
    assert "outcomes-0.jsonl is damaged" in refused(capsys, *words_of(folder, out))
    assert other.read_text() == "mine"


def tried(pair: int, **words: Any) -> Tried:
    """One pair, missed."""
    given: dict[str, Any] = {"repeat": 0, "success": False, "success_at_end": False, "steps": None}
    return Tried(pair=pair, final_distance=1.5, **(given | words))


def test_a_log_reads_what_all_ranks_wrote(tmp_path: Path) -> None:
    """Each rank adds to its own file, cuts its own torn line off, and leaves the others' alone."""
    for rank in (0, 1):
        Log(tmp_path, MARK, rank).write([tried(rank), tried(rank + 2)])
    with (tmp_path / "outcomes-1.jsonl").open("ab") as file:
        file.write(b'{"pair"')
    log = Log(tmp_path, MARK, 0)
    assert set(log.tried) == {("planned", 0, pair) for pair in range(4)}
    log.write([tried(4)])
    assert (tmp_path / "outcomes-1.jsonl").read_bytes().endswith(b'{"pair"')
    assert len(Log(tmp_path, MARK, 1).tried) == 5
    assert (tmp_path / "outcomes-1.jsonl").read_bytes().endswith(b"}\n")
    with pytest.raises(ValueError, match="has other weights"):
        Log(tmp_path, Mark(manifest="m", weights=None))


def started(words: list[str], *launcher: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "worldmodel", *words], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


Sent = Callable[[Path, int], None]


# Long enough to be met in the middle, and the same plans: more iterations would be others.
LONG = ("--batch-size", "1", "--seeds", "12")


@pytest.fixture(scope="module")
def long(folder: Path) -> dict[str, Any]:
    """What the long evaluation comes to when nothing stops it."""
    assert main(words_of(folder, folder / "long", *LONG)) == 0
    return found(folder / "long")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_real_kill_loses_nothing(
    number: int, folder: Path, long: dict[str, Any], tmp_path: Path
) -> None:
    """Killed in the middle by the system, it goes on to the same end."""
    out = tmp_path / "out"
    words = words_of(folder, out, *LONG)
    process = started(words)
    while process.poll() is None and not (
        out.exists() and sum(len(p.read_bytes().splitlines()) for p in out.glob("*.jsonl")) > 20
    ):
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number, 130)
    assert not (out / "result.json").exists()
    assert main(words) == 0
    assert found(out) == long


@pytest.mark.slow
def test_two_ranks_share_the_pairs_and_end_as_one(folder: Path, tmp_path: Path) -> None:
    """Each tries half; the result is that of one process to the bit; begun by two, ended by one."""
    out, launcher = tmp_path / "out", ["-m", "torch.distributed.run", "--standalone"]
    ranks = [*launcher, "--nproc-per-node", "2"]
    process = started(words_of(folder, out), *ranks)
    told, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert told.count("look at") == 1
    assert [len(path.read_bytes().splitlines()) for path in sorted(out.glob("*.jsonl"))] == [25, 25]
    torch.set_num_threads(1)
    assert main(words_of(folder, tmp_path / "alone")) == 0
    assert found(out) == found(tmp_path / "alone")
    for name in ("index.html", "result.json"):
        (out / name).unlink()
    log = out / "outcomes-1.jsonl"
    log.write_bytes(log.read_bytes()[:1500])
    assert main(words_of(folder, out)) == 0
    assert found(out) == found(tmp_path / "alone")
    process = started(words_of(folder, out), *ranks)
    error = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert error.count("--out must not hold a result yet") == 1


def test_a_run_plans_as_was_kept_with_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Later evaluations plan and say what `--keep-planner` wrote, unless told otherwise."""
    run = shutil.copytree(folder / "run", tmp_path / "run")

    def planned(of: str, out: str, *more: str) -> dict[str, Any]:
        task = ["--manifest", str(folder / of), "--out", str(tmp_path / out)]
        assert main(["evaluate", str(run), *task, *MORE, *more]) == 0
        of_planner: dict[str, Any] = found(tmp_path / out)["fingerprint"]["planner"]
        return of_planner

    chosen = planned("n.json", "chosen", *SEARCH, "--std", "0.3", "--free", "--keep-planner")
    kept = json.loads((run / "planner.json").read_text(encoding="utf-8"))
    other, same = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("m.json", "n.json")
    )
    assert kept["manifest"] == same["sha256"] != other["sha256"]
    capsys.readouterr()
    assert planned("m.json", "later") == chosen
    assert "planner of the run (planner.json): " in (words := capsys.readouterr().out)
    assert "std 0.3, free True" in words
    assert planned("m.json", "told", "--std", "0.5") == chosen | {"std": 0.5}
    usual = planned("m.json", "usual", "--planner", "cem", *SEARCH)
    assert (usual["std"], usual["held"]) == (1.0, True)
    with pytest.warns(RuntimeWarning, match="were chosen on these pairs"):
        planned("n.json", "again")
    planned("n.json", "mppi", "--planner", "mppi", *SEARCH, "--keep-planner")
    warm = planned("m.json", "warm", "--temperature", "3")  # CEM has no such setting
    assert (warm["name"], warm["temperature"]) == ("mppi", 3)
    with pytest.raises(AssertionError):
        planned("m.json", "sources", "--sources", "recorded")
    assert "is a setting of proposals, got it with planner mppi" in capsys.readouterr().err


def test_a_full_disk_is_told_of_by_the_file_that_did_not_fit(tmp_path: Path) -> None:
    """What was written before stays, the torn line counts for nothing, and with room it goes on."""
    resource = pytest.importorskip("resource", reason="needs rlimits")
    Log(tmp_path, MARK).write([tried(0)])
    size = (tmp_path / "outcomes-0.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*outcomes-0\.jsonl: File too large"):
            Log(tmp_path, MARK).write([tried(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log = Log(tmp_path, MARK)
    assert set(log.tried) == {("planned", 0, 0)}
    log.write([tried(1)])
    assert set(Log(tmp_path, MARK).tried) == {("planned", 0, 0), ("planned", 0, 1)}
