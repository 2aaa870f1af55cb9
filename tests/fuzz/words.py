"""Malformed words behind every command: each option in turn gets what it cannot mean."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic.fields import FieldInfo

from fuzz.calls import LIMIT, Hang, Outcome, limited
from fuzz.children import Child, Ended, verdict
from worldmodel.apps import cli, settings

_MODEL = ("encoder.image_size=16", "encoder.width=4", "predictor.depth=1", "predictor.heads=1")
TRAIN = ("--steps", "2", "--batch-size", "4", "--num-proj", "4", "--num-frames", "3",
         "--frameskip", "2", "--workers", "0", "--device", "cpu")  # fmt: skip
# A short run of each command; {} is the folder of inputs.
BASE: dict[str, tuple[str, ...]] = {
    "demo": ("--out", "new", "--steps", "1"),
    "data collect": ("--episodes", "2", "--length", "6", "--size", "16", "--out", "new.h5"),
    "data inspect": ("{}/data.h5", "--sheet", "new.png"),
    "data convert": ("{}/data.h5", "new.h5"),
    "data render": ("{}/data.h5", "new.h5", "--size", "16"),
    "train": ("--data", "{}/data.h5", "--out", "new", *TRAIN, *_MODEL),
    "tune-lambda": ("--data", "{}/data.h5", "--out", "new", "--steps", "1"),
    "study": ("{}/run", "--out", "new"),
    "view": ("{}/run", "--out", "new"),
    "manifest": ("--env", "two-room", "--pairs", "4", "--out", "new.json"),
    "evaluate": (
        "{}/run",
        "--manifest",
        "{}/pairs.json",
        "--out",
        "new",
        "--films",
        "0",
        "--samples",
        "8",
        "--iterations",
        "2",
    ),
    "compare": ("{}/result.json", "{}/result.json", "--out", "new.json"),
    "info": (),
}
LONG = ("demo", "tune-lambda", "view", "study")
_NUMBERS = ("-1", "1.5", "x", "", "nan", "inf", "1e400", "9" * 400, "9223372036854775808",
            "-9223372036854775809", "1_0", "0x10", "٣", "1e3", "[1]", "{}", "true")  # fmt: skip
_WORDS = ("", "nonsense", "-1", "\t", "a\nb", "é\U0001f600", "x" * 5000, "None", "[", "{")


def flag(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def values(field: FieldInfo, inputs: Path) -> tuple[str, ...]:
    """What an option cannot mean, or should not be allowed to."""
    kind = str(field.annotation)
    if "Path" in kind:
        inside = ("data.h5", "run", "link", "run/train.json", "pairs.json")
        return ("", "/dev/null", "absent/too/deep", *(f"{inputs}/{n}" for n in inside), "x" * 5000)
    if "int" in kind or "float" in kind:
        return _NUMBERS
    return _WORDS


def digests(folder: Path) -> dict[str, str]:
    """What every input holds."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in path.name
    }


def spoiled(name: str, inputs: Path) -> Iterator[tuple[str, list[str], bool]]:
    """An option, the words of a command with another value for it, and whether it may run."""
    base = [word.replace("{}", str(inputs)) for word in BASE[name]]
    record = getattr(settings, cli.COMMANDS[name].settings)
    yield "unknown", [*base, "--no-such-option", "1"], False
    yield "nothing", [], False
    yield "key=value", [*base, "no_such=1"], False
    yield "key=value", [*base, "=", "a.b.c=d"], False
    for option, field in record.model_fields.items():
        if option == "debug":  # it asks for the traceback
            continue
        positional = "_CliPositionalArg" in str(field.metadata)
        order = [
            n for n, f in record.model_fields.items() if "_CliPositionalArg" in str(f.metadata)
        ]
        runs = "Path" in str(field.annotation) or option in ("data", "env", "world", "device")
        for value in values(field, inputs):
            if name in LONG:  # what its output must not be it says first
                files = ("data.h5", "link", "run/train.json", "pairs.json")
                runs = option == "out" and value in ("/dev/null", *(f"{inputs}/{f}" for f in files))
            words = list(base)
            if positional:
                words[order.index(option)] = value
            elif flag(option) in words:
                words[words.index(flag(option)) + 1] = value
            else:
                words += [flag(option), value]
            yield option, words, runs


def fuzz_words(inputs: Path, *, seed: int, share: float, names: str = "") -> Iterator[Outcome]:
    """Every option of every command, or a random share of them; inputs must stay as they are."""
    drawn, before = random.Random(seed), digests(inputs)
    told = inputs.parent / "told.txt"
    for name in BASE:
        for option, words, runs in spoiled(name, inputs):
            if drawn.random() >= share or names not in name:
                continue
            everything: list[Any] = [*name.split(), *words]
            work = inputs.parent / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            ended = (
                Child(lambda words=everything: cli.main(words), told, folder=work).wait()
                if runs
                else parsed(everything)
            )
            found = verdict(ended, flag(option), option.upper(), option, option.replace("_", "-"))
            if runs and (after := digests(inputs)) != before:
                found, before = "overwritten", after
            lines = ended.said.strip().splitlines()
            yield Outcome(name, option, repr(words)[-120:], found, lines[-1][:200] if lines else "")


def parsed(words: list[str]) -> Ended:
    """What comes of them as far as the settings: the command itself does nothing."""
    nothing, said = mock.Mock(), io.StringIO()
    for one in cli.COMMANDS.values():
        getattr(nothing, one.function).return_value = 0
    try:
        with (
            mock.patch.object(cli, "importlib", mock.Mock(import_module=lambda _: nothing)),
            contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), limited(LIMIT),
        ):  # fmt: skip
            return Ended(cli.main(words), said.getvalue())
    except Hang:
        return Ended(None, said.getvalue())
    except SystemExit as error:
        return Ended(error.code if isinstance(error.code, int) else 1, said.getvalue())
    except Exception:
        return Ended(70, traceback.format_exc())
