"""A slice of the fuzz: `python tests/fuzz` runs all of it."""

from __future__ import annotations

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
