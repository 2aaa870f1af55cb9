"""Progress: plain lines in a file or pipe, a bar on a terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest
from tqdm import tqdm

from worldmodel.apps.progress import Progress, say


def test_quiet_lines_are_about_ten_and_the_last_is_complete(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A hundred steps give ten lines with count, values, rate and time left; none on stderr."""
    with Progress("train", 100) as bar:
        for _ in range(100):
            bar.update(loss=0.12345)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 10
    assert err == ""
    pattern = r"train  100/100 steps  loss 0\.123  [\d.]+/s  0 s left"
    assert re.fullmatch(pattern, lines[-1])


@pytest.mark.parametrize(
    ("total", "start", "stride"), [(1, 0, 1), (3, 0, 1), (50, 0, 7), (9, 6, 1)]
)
def test_the_end_is_always_told(
    total: int, start: int, stride: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few steps, uneven strides and a resumed run all end with a line of total/total."""
    with Progress("plan", total, start=start) as bar:
        done = start
        while done < total:
            bar.update(min(stride, total - done))
            done += stride
    assert f"plan  {total}/{total} steps" in capsys.readouterr().out.splitlines()[-1]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a terminal on stderr the bar shows title, count and values there."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("train", 4, start=1) as bar:
        for _ in range(3):
            bar.update(loss=0.5)
    assert "train" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "loss=0.5" in terminal.getvalue()


def test_a_kill_is_not_lost_in_a_lock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there can be no bar, no lock of one is taken: tqdm turns a kill there into a bug."""

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm, "get_lock", killed)
    say("found it")
    assert capsys.readouterr() == ("found it\n", "")


def test_say_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A line on stdout, and nothing else."""
    say("found it")
    assert capsys.readouterr() == ("found it\n", "")


def test_a_quiet_one_counts_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """A quiet counter, on all ranks but the first, prints nothing."""
    with Progress("evaluate", 3, quiet=True) as bar:
        bar.update(3)
    assert bar.done == 3
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_word_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill while tqdm makes its lock became an AttributeError; words need no lock."""

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.delattr(tqdm, "_lock", raising=False)
    monkeypatch.setattr(tqdm, "get_lock", killed)
    say("a word")
    assert capsys.readouterr().out == "a word\n"
