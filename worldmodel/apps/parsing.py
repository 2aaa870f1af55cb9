"""Frozen records from words and files: settings, and JSON that others may have written."""

import difflib
import json
import re
from collections import ChainMap
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from worldmodel.apps.settings import Part, Settings, TrainSettings

SettingsT = TypeVar("SettingsT", bound=Settings)
Values = dict[str, Any]
_CAP = 1 << 20  # largest settings file, in bytes
_TABLES = ("terms", "augment")  # settings that are several named numbers
_RECORD_CAP = 1 << 26  # largest record; a manifest of ten thousand pairs has a tenth


def parse(kind: type[SettingsT], command: str, words: Sequence[str]) -> SettingsT:
    """Parse the words after a command into a settings record of that `kind`.

    key=value overrides flags, flags override --config, and --config overrides presets.

    Raises: ValueError on a mistake, in one line that names the option; SystemExit after --help.
    """
    flags, pairs = _split(kind, words)
    if not {"-h", "--help"}.isdisjoint(flags):
        _print_help(kind, command, flags)
    try:
        given: Values = _source(kind, command, flags)()
    except SettingsError as error:
        message = str(error).removeprefix("error parsing CLI: ")
        if named := re.match(r"Parsing error encountered for (\w+):", message):
            message = f"{_flag(named[1])} must be name=value"
        raise ValueError(message + _hint(kind, message)) from None
    file = read_settings(Path(given["config"])) if given.get("config") else {}
    told = [file, given, _values_of(pairs, kind)]
    # A resumed run keeps its settings.
    usual = {name: field.default for name, field in kind.model_fields.items()}
    now = ChainMap(*told[::-1], usual)
    if str(now.get("resume")).lower() in ("true", "1", "yes", "on", "y", "t"):
        begun = Path(str(now["out"])) / f"{command}.json"
        told.insert(0, read_settings(begun) if begun.is_file() else {})
    return complete(kind, command, *told)


def complete(kind: type[SettingsT], command: str, *layers: Values) -> SettingsT:
    """Build a record from layers of values: a later layer overrides, presets are the lowest."""
    values: Values = {}
    for layer in layers:
        values = _over(values, {k: v for k, v in layer.items() if v is not None or k != "model"})
    try:
        record = kind.model_validate(_chosen(kind, command, values) | values)
        record.model_dump_json()
    except ValidationError as error:
        raise ValueError(message_of(error, kind)) from None
    except ValueError as error:  # the output stores them
        raise ValueError(f"settings must be what JSON can hold: {error}") from None
    return record


def read_settings(path: Path) -> Values:
    """Read settings by name from a YAML or JSON file; an error names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"--config must be a file, got {path}")
    if path.stat().st_size > _CAP:
        raise ValueError(f"{path} must be a file of settings, got one of over 1 MiB")
    try:
        values = _load(path.name, path.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        name = "JSON" if path.suffix == ".json" else "YAML"
        raise ValueError(f"{path} is not {name}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path} must hold settings by name, got {type(values).__name__}")
    return values


def kept_settings(kind: type[SettingsT], command: str, path: Path, **own: Any) -> SettingsT:
    """Read the settings that a command wrote into its folder; `own` adds what the file lacks."""
    if not path.is_file():
        raise FileNotFoundError(f"--resume needs a run folder with {path.name}, got {path.parent}")
    try:
        return complete(kind, command, read_settings(path), own)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def check_kept(settings: Settings, before: Settings) -> None:
    """Refuse settings that would change the results of an earlier start."""
    if changed := settings.changed(before):
        raise ValueError(f"--resume must keep the run's settings, got {', '.join(changed)}")


def message_of(error: ValidationError, kind: type[Settings] | None = None) -> str:
    """The first fault in one line; with `kind`, names are written as options."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"] if part != "[key]"]
    rule = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid" or (first["type"] == "value_error" and not place):
        return rule
    name = ".".join(place) or "the content"
    if field := kind.model_fields.get(name) if kind is not None else None:
        name = name.upper() if "_CliPositionalArg" in str(field.metadata) else _flag(name)
    if first["type"] == "missing":
        return f"{name} must be given"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(kind.model_fields if kind is not None else ()))
        none = f"there is no setting {place[-1]!r}; the settings are {known}"
        return none if known else f"{name} is an unknown entry"
    if first["type"] != "literal_error":
        rule = rule.partition(", ")[0]
    rule = re.sub(r"^(Input|.*?) should ", "must ", rule)
    came = json.dumps(first["input"], default=repr, ensure_ascii=False)
    return f"{name} {rule}, got {came if len(came) < 200 else came[:200] + '…'}"


class Record(BaseModel):
    """Base of the records that files hold: these keys and no others, of these types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


RecordT = TypeVar("RecordT", bound=Record)


def read_record(path: Path, kind: type[RecordT], what: str) -> RecordT:
    """Read a record from a JSON file; an error names the file, `what` it is, and its fault."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    if path.stat().st_size > _RECORD_CAP:
        raise ValueError(f"{path} is no {what}: it is larger than {_RECORD_CAP >> 20} MiB")
    return parse_record(path.read_bytes(), kind, f"{path} is no {what}")


def parse_record(text: bytes, kind: type[RecordT], complaint: str) -> RecordT:
    """Parse a record from JSON; a ValueError begins with `complaint`."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{complaint}: {message_of(error)}") from None


def preset(command: str, option: str, name: str) -> Values:
    """The values that an entry of presets.json sets."""
    return dict(_packaged("presets.json", command)[option][name])


def _packaged(file: str, command: str) -> Values:
    """The entries of a command in presets.json or help.yaml beside this module."""
    text = resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
    return _load(file, text).get(command, {})


def _load(name: str, text: str) -> Any:
    # JSON has its own parser, because YAML 1.1 reads 1e-3 as text.
    if name.endswith(".json"):
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _chosen(kind: type[Settings], command: str, values: Values) -> Values:
    """The values of the presets that these values, or an earlier preset, choose."""
    found: Values = {}
    for option, entries in _packaged("presets.json", command).items():
        chosen = (found | values).get(option, kind.model_fields[option].default)
        found |= entries.get(str(chosen), {})
    return found


def _over(below: Values, above: Values) -> Values:
    """Merge two layers; mappings, such as the arguments of model parts, key by key."""
    both = {k for k in above if isinstance(below.get(k), dict) and isinstance(above[k], dict)}
    return below | above | {k: _over(below[k], above[k]) for k in both}


def _source(kind: type[Settings], command: str, words: list[str] | None) -> CliSettingsSource[Any]:
    return CliSettingsSource(
        kind,  # type: ignore[arg-type]  # any pydantic model will do
        cli_prog_name=f"worldmodel {command}", cli_parse_args=words, cli_exit_on_error=False,
        cli_kebab_case=True, cli_implicit_flags="toggle", cli_hide_none_type=True,
        cli_parse_none_str="none", case_sensitive=True,
    )  # fmt: skip


def _print_help(kind: type[Settings], command: str, flags: Sequence[str]) -> NoReturn:
    """Print help with the defaults of the presets that the words choose."""
    words = [piece for word in flags for piece in word.removeprefix("--").split("=")]
    presets = _packaged("presets.json", command)
    given = {option: value for option, value in pairwise(words) if option in presets}
    told = _packaged("help.yaml", command)
    about = f"{kind.__doc__}\n\n{told.get('about', '')}".strip()
    shown: type[Settings] = type(kind.__name__, (kind,), {"__doc__": about})
    for name, value in (given | _chosen(kind, command, given)).items():
        shown.model_fields[name].default = value
    parser = _source(shown, command, None).root_parser
    parser.epilog = told.get("examples")
    parser.print_help()
    raise SystemExit(0)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _split(kind: type[Settings], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into flags and key=value; `--state a b` becomes `--state a --state b`."""
    fields = {_flag(name): str(field.annotation) for name, field in kind.model_fields.items()}
    flags, pairs, inside = list[str](), list[str](), ""
    for word in words:
        takes = bool(flags) and fields.get(flags[-1], "bool") not in ("bool", "<class 'bool'>")
        if word.startswith("-"):
            inside = word if "list[" in fields.get(word, "") else ""
            flags += [] if inside else [word]
        elif inside:
            flags += [inside, word]
        elif kind is TrainSettings and "=" in word and not takes:
            pairs.append(word)
        else:
            flags.append(word)
    return flags, pairs


def _values_of(pairs: Sequence[str], kind: type[Settings]) -> Values:
    """`["weight=0.1", "predictor.dropout=0"]` as values by name."""
    values: Values = {}
    for pair in pairs:
        key, _, text = map(str.strip, pair.partition("="))
        part, dot, name = key.partition(".")
        groups = (*get_args(Part), *_TABLES)
        if not part or (dot and (part not in groups or not name)):
            rule = f"part.key=value with part one of {', '.join(groups)}"
            raise ValueError(f"settings must be key=value, or {rule}, got {pair!r}")
        if dot:
            # Parse numbers, booleans, lists and null; keep any other text.
            known = {"none": "null", "true": "true", "false": "false", "null": "null"}
            value: Any = text
            with suppress(ValueError, RecursionError):
                value = json.loads(known.get(text.lower(), text))
            of = values if part in _TABLES else values.setdefault("model", {})
            of.setdefault(part, {})[name] = value
            continue
        field = kind.model_fields.get(name := part.replace("-", "_"))
        optional = field is not None and "None" in str(field.annotation)
        values[name] = None if optional and text.lower() in ("none", "null") else text
    return values


def _hint(kind: type[Settings], message: str) -> str:
    found = re.search(r"unrecognized arguments: (--[\w-]+)", message)
    if not found:
        return ""
    word, known = found.group(1), map(_flag, kind.model_fields)
    close = difflib.get_close_matches(word, list(known), cutoff=0.7)
    # Slips and short forms mostly begin right: --iters means --iterations, not --elites.
    alike = {name: sum(word.startswith(name[:n]) for n in range(len(name))) for name in close}
    meant = max(close, key=alike.__getitem__, default=None)
    return f"; did you mean {meant}?" if meant else ""
