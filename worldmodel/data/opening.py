"""Open a data set of any known format, recognised by its path."""

from pathlib import Path
from typing import Any

from worldmodel.data._cloud import place
from worldmodel.data.episodes import Episodes
from worldmodel.data.hdf5 import hdf5_columns, open_hdf5
from worldmodel.data.lerobot import lerobot_columns, open_lerobot
from worldmodel.data.minari import is_minari, minari_columns, open_minari
from worldmodel.data.reading import Column, Integers, Names

__all__ = ["columns_of", "format_of", "open_episodes"]


def format_of(path: str | Path) -> str:
    """The format at `path`, which may be a URL: "hdf5", "lerobot" or "minari".

    Raises: FileNotFoundError if nothing is there; ValueError if it is another folder.
    """
    at = place(path)
    if at.is_file():
        return "hdf5"
    if (at / "meta/info.json").is_file():
        return "lerobot"
    if is_minari(path):
        return "minari"
    if at.is_dir():
        folders = "a LeRobot folder (meta/info.json) or a Minari folder (data/metadata.json)"
        raise ValueError(f"path must be an HDF5 file, {folders}, got {path}")
    raise FileNotFoundError(f"there is no data set at {path}")


def open_episodes(
    path: str | Path, *, pixels: str | None = None, action: str | None = None, state: Names = None,
    integers: Integers = "choices", shift: bool = False,
) -> Episodes:  # fmt: skip
    """Episodes of an HDF5 file, a LeRobot folder, or a Minari folder or id, frames on disk.

    A URL of fsspec, as s3://bucket/walks.h5, is read through a cache: see docs/data.md. None means
    the format's usual columns; `integers` and `shift` are those of `read_actions`.

    Raises: as the three readers; ValueError if Minari gets an `action` or `shift`.
    """
    kind = format_of(path)
    if kind == "minari":
        if action is not None or shift:
            got = "shift" if shift else f"action {action!r}"
            raise ValueError(f"a Minari data set has one action, got {got}")
        return open_minari(path, pixels=pixels, state=state, integers=integers)
    named: dict[str, Any] = {"action": action or "action", "state": state, "integers": integers}
    if kind == "lerobot":
        return open_lerobot(path, pixels=pixels, shift=shift, **named)
    return open_hdf5(path, pixels=pixels or "pixels", shift=shift, **named)


def columns_of(path: str | Path) -> list[Column]:
    """All columns of the data set at `path`."""
    readers = {"hdf5": hdf5_columns, "lerobot": lerobot_columns, "minari": minari_columns}
    return readers[format_of(path)](path)
