"""From the words of a command line to a settings record: presets, --config, flags, key=value."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections import ChainMap
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from worldmodel.apps.settings import Part, Settings, TrainSettings

__all__ = ["check_kept", "complete", "kept_settings", "message_of", "parse", "preset",
           "read_settings"]  # fmt: skip

SettingsT = TypeVar("SettingsT", bound=Settings)
Values = dict[str, Any]
_CAP = 1 << 20  # bytes of a settings file


def parse(kind: type[SettingsT], command: str, words: Sequence[str]) -> SettingsT:
    """The settings that a command line means: key=value over flags over --config over presets.

    Args:
        kind: the command's record.
        command: as it is typed, for usage and errors.
        words: behind the command.
    Returns: the record.
    Raises: ValueError on a mistake, in one line that names the option; SystemExit after --help.
    """
    flags, pairs = _split(kind, words)
    if not {"-h", "--help"}.isdisjoint(flags):
        _print_help(kind, command, flags)
    try:
        given: Values = _source(kind, command, flags)()
    except SettingsError as error:
        _refuse(kind, str(error).removeprefix("error parsing CLI: "))
    file = read_settings(Path(given["config"])) if given.get("config") else {}
    told = [file, given, _values_of(pairs, kind)]
    # A run that is continued keeps the settings it began with.
    if given.get("resume"):
        usual = {"out": kind.model_fields["out"].default}
        begun = Path(str(ChainMap(*told[::-1], usual)["out"])) / f"{command}.json"
        told.insert(0, read_settings(begun) if begun.is_file() else {})
    return complete(kind, command, *told)


def complete(kind: type[SettingsT], command: str, *layers: Values) -> SettingsT:
    """A record of values by name, later layers over earlier ones, presets below all of them.

    Args:
        kind: of the record.
        command: whose presets count.
        layers: values by name.
    Raises: ValueError naming the setting, the rule and what came.
    """
    values: Values = {}
    for layer in layers:
        model = _merge(values.get("model"), layer.get("model"))
        values |= layer
        if model is not None:
            values["model"] = model
    below: Values = {}
    for option, entries in _presets().get(command, {}).items():
        chosen = values.get(option, kind.model_fields[option].default)
        below |= entries.get(chosen, {})
    try:
        return kind.model_validate(below | values)
    except ValidationError as error:
        raise ValueError(message_of(error, kind)) from None


def read_settings(path: Path) -> Values:
    """The settings in a YAML or JSON file, by name.

    Raises: FileNotFoundError or ValueError, naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--config must be a file, got {path}")
    if path.stat().st_size > _CAP:
        raise ValueError(f"{path} must be a file of settings, got one of over 1 MiB")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        # YAML 1.1 reads 1e-3 as a word; JSON files keep their numbers this way.
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ValueError(f"{path} is not {kind}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path} must hold settings by name, got {type(values).__name__}")
    return values


def kept_settings(kind: type[SettingsT], command: str, path: Path, **own: Any) -> SettingsT:
    """The settings that a command wrote into its folder.

    Args:
        kind: of the record.
        command: that wrote it.
        path: of the file.
        own: settings that the file does not hold.
    Raises: ValueError naming the file if it is damaged.
    """
    try:
        return complete(kind, command, read_settings(path), own)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def check_kept(settings: Settings, before: Settings) -> None:
    """Refuse to continue with settings that decide other numbers than those of an earlier start.

    Raises: ValueError naming what differs.
    """
    if changed := settings.changed(before):
        raise ValueError(f"--resume must keep the run's settings, got {', '.join(changed)}")


def message_of(error: ValidationError, kind: type[Settings] | None = None) -> str:
    """The first thing that is wrong, in one line; names become options where `kind` is given."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid" or (first["type"] == "value_error" and not place):
        return rule
    name = ".".join(place) or "the content"
    if kind is not None and place:
        name = _shown(kind, place)
    if first["type"] == "missing":
        return f"{name} must be given"
    if first["type"] == "extra_forbidden":
        if kind is None:
            return f"{name} is an entry too many"
        known = ", ".join(sorted(kind.model_fields))
        return f"there is no setting {place[-1]!r}; known are {known}"
    if first["type"] != "literal_error":
        rule = rule.partition(", ")[0]
    rule = re.sub(r"^(Input|.*?) should ", "must ", rule)
    came = json.dumps(first["input"], default=repr, ensure_ascii=False)
    return f"{name} {rule}, got {came if len(came) < 200 else came[:200] + '…'}"


def _shown(kind: type[Settings], place: list[str]) -> str:
    """A setting as it is typed: --batch-size, RUN, or model.encoder."""
    field = kind.model_fields.get(place[0])
    if field is None or len(place) > 1:
        return ".".join(place)
    positional = "_CliPositionalArg" in str(field.metadata)
    return place[0].upper() if positional else f"--{place[0].replace('_', '-')}"


def _source(
    kind: type[SettingsT], command: str, words: Sequence[str] | None
) -> CliSettingsSource[Any]:
    source: CliSettingsSource[Any] = CliSettingsSource(
        kind,  # type: ignore[arg-type]  # any pydantic model will do
        cli_prog_name=f"worldmodel {command}",
        cli_parse_args=list(words) if words is not None else None,
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_parse_none_str="none",
        case_sensitive=True,
    )
    return source


def _print_help(kind: type[SettingsT], command: str, flags: Sequence[str]) -> NoReturn:
    """Help whose defaults are those of the presets that the words choose."""
    given = {}
    for option in _presets().get(command, {}):
        for i, word in enumerate(flags):
            if word == f"--{option}" and i + 1 < len(flags):
                given[option] = flags[i + 1]
            elif word.startswith(f"--{option}="):
                given[option] = word.partition("=")[2]
    defaults = dict(given)
    for option, entries in _presets().get(command, {}).items():
        defaults |= entries.get(given.get(option, kind.model_fields[option].default), {})
    shown: type[Settings] = type(
        kind.__name__, (kind,), {"__doc__": inspect.cleandoc(kind.__doc__ or "")}
    )
    for name, value in defaults.items():
        shown.model_fields[name].default = value
    shown.model_rebuild(force=True)
    parser = _source(shown, command, None).root_parser
    parser.epilog = kind.examples or None
    parser.print_help()
    raise SystemExit(0)


def preset(command: str, option: str, name: str) -> Values:
    """What an entry of presets.json sets."""
    return _presets()[command][option][name]


def _presets() -> dict[str, dict[str, dict[str, Values]]]:
    text = resources.files(__package__).joinpath("presets.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, dict[str, Values]]] = json.loads(text)
    return found


def _split(kind: type[Settings], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags, and key=value words; `--state a b` becomes `--state a --state b`."""
    lists = {
        f"--{name.replace('_', '-')}"
        for name, field in kind.model_fields.items()
        if "list[" in str(field.annotation)
    }
    flags: list[str] = []
    pairs: list[str] = []
    inside: str | None = None
    for word in words:
        if word.startswith("-"):
            inside = word if word in lists else None
            flags += [] if inside else [word]
        elif inside:
            flags += [inside, word]
        elif kind is TrainSettings and "=" in word and not (flags and _takes(kind, flags[-1])):
            pairs.append(word)
        else:
            flags.append(word)
    return flags, pairs


def _takes(kind: type[Settings], word: str) -> bool:
    """Whether a value follows this word."""
    field = kind.model_fields.get(word.removeprefix("--").replace("-", "_"))
    return word.startswith("--") and field is not None and field.annotation is not bool


def _values_of(pairs: Sequence[str], kind: type[Settings]) -> Values:
    """`["weight=0.1", "predictor.dropout=0"]` as values by name."""
    values: Values = {}
    parts = Part.__args__  # type: ignore[attr-defined]
    for pair in pairs:
        key, _, text = pair.partition("=")
        part, dot, name = key.strip().partition(".")
        if not part or (dot and (part not in parts or not name)):
            raise ValueError(
                f"settings must be key=value, or part.key=value with part one of "
                f"{', '.join(parts)}, got {pair!r}"
            )
        if dot:
            values.setdefault("model", {}).setdefault(part, {})[name] = _value(text.strip())
        else:
            name = part.replace("-", "_")
            field = kind.model_fields.get(name)
            optional = field is not None and "None" in str(field.annotation)
            nothing = optional and text.strip().lower() in ("none", "null")
            values[name] = None if nothing else text.strip()
    return values


def _value(text: str) -> Any:
    """A number, truth value, list or nothing if it is written as one, else the word."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return TypeAdapter(Any).validate_json(text)
    except ValidationError:
        return text


def _merge(before: Any, after: Any) -> Any:
    """Arguments of the model's parts, one by one; what is no mapping is left to the check."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return before if after is None else after
    return before | {
        part: before.get(part, {}) | changes if isinstance(changes, dict) else changes
        for part, changes in after.items()
    }


def _refuse(kind: type[Settings], message: str) -> NoReturn:
    """Say which words were not understood, and which option was probably meant."""
    found = re.search(r"unrecognized arguments: (--[\w-]+)", message)
    known = [f"--{name.replace('_', '-')}" for name in kind.model_fields]
    hint = ""
    if found:
        word = found.group(1)
        close = difflib.get_close_matches(word, known, cutoff=0.7)
        # Most slips and short forms begin right: --iters is --iterations rather than --elites.
        meant = max(close, key=lambda name: _alike(name, word), default=None)
        hint = f"; did you mean {meant}?" if meant else ""
    raise ValueError(message + hint)


def _alike(a: str, b: str) -> int:
    """How many letters two words begin with alike."""
    differ = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differ, min(len(a), len(b)))
