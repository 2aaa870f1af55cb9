"""JSON files that others may have written: read as a frozen record, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from worldmodel.apps.parsing import message_of

__all__ = ["Record", "parse_record", "read_record"]

_CAP = 1 << 26  # bytes; ten thousand pairs of a manifest or outcomes of a result take a tenth


class Record(BaseModel):
    """What a file of ours holds: these keys and no others, of these types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


RecordT = TypeVar("RecordT", bound=Record)


def read_record(path: Path, kind: type[RecordT], what: str) -> RecordT:
    """A record from its JSON file; an error names it, `what` it is, and what is wrong in it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    if path.stat().st_size > _CAP:
        raise ValueError(f"{path} is no {what}: it is larger than {_CAP >> 20} MiB")
    return parse_record(path.read_bytes(), kind, f"{path} is no {what}")


def parse_record(text: bytes, kind: type[RecordT], complaint: str) -> RecordT:
    """A record from its JSON; the ValueError of another text begins with `complaint`."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{complaint}: {message_of(error)}") from None
