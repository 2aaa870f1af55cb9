"""A slice of the fuzz: `python tests/fuzz` runs all of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from fuzz import bases, calls


def test_every_public_callable_is_spoiled(tmp_path: Path) -> None:
    """The table of legitimate calls has one for each public callable."""
    table = bases.make_bases(tmp_path)
    assert [name for name, _ in bases.public() if name.split(".")[-1] not in table] == []


def test_malformed_calls_end_in_clear_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tenth of all malformed calls 97 % name what is wrong, or are legitimate after all."""
    monkeypatch.chdir(tmp_path)
    found = list(calls.fuzz_calls(bases.make_bases(tmp_path), seed=1, share=0.1))
    bad = [one for one in found if one.verdict not in ("clear", "other name", "legitimate")]
    assert len(found) > 500
    assert len(bad) <= 0.03 * len(found), "\n".join(map(str, bad))
    assert not [one for one in bad if one.verdict == "hang"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and mounts as Linux does")
def test_a_slice_of_the_other_kinds_comes_to_nothing_wrong(tmp_path: Path) -> None:
    """Words, files, full disks, second processes and kills, half a minute of each."""
    mounts: list[str] = []
    if os.geteuid() and (unshare := shutil.which("unshare")):
        # A user of its own may mount, where the system lets it.
        mounts = [unshare, "-rm"]
        if subprocess.run([*mounts, "true"], capture_output=True).returncode:
            mounts = []
    kinds = ("words", "files", "disks", "twice", "kills")
    fuzz = Path(__file__).resolve().parent / "fuzz"
    words = [str(fuzz), "--only", ",".join(kinds), "--minutes", "2.5", "--seed", "7"]
    done = subprocess.run(
        [*mounts, sys.executable, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    tried = {kind: int(n) for kind, n in re.findall(r"^(\w+) +(\d+)  ", done.stdout, re.MULTILINE)}
    if "disks: not run" in done.stdout:
        del tried["disks"]
    assert min(tried.values()) > 0
    assert {*tried} >= {*kinds} - {"disks"}
