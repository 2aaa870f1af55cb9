"""LeRobot data sets, versions 2 and 3: parquet tables and mp4 videos.

Read with pyarrow and av, without the lerobot package.
Source: LeRobot's documented LeRobotDataset layouts v2.0, v2.1 and v3.0.
"""

import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldmodel._extras import need
from worldmodel.data import reading
from worldmodel.data._cloud import Place, place
from worldmodel.data.episodes import Episodes
from worldmodel.data.reading import Column, Integers, Names

__all__ = ["lerobot_columns", "open_lerobot"]

_INFO = "meta/info.json"
_REMEDY = "download the data set again, or take the episode out of meta/episodes"


def open_lerobot(
    folder: str | Path, *, pixels: str | None = None, action: str = "action", state: Names = None,
    integers: Integers = "choices", shift: bool = False,
) -> Episodes:  # fmt: skip
    """Episodes of a LeRobot folder.

    Row t holds observation t and action t, as recorded; the last action of an episode is kept and
    leads nowhere. Frames are decoded episode by episode: convert to HDF5 before training.

    Args:
        folder: with `meta/`, `data/` and `videos/`, or its URL, as s3://bucket/folder.
        pixels: camera, e.g. `observation.images.top`; optional if there is only one.
        action: feature with the actions.
        state: features laid side by side as `states`; by default `observation.state` if it exists.
        integers, shift: see `worldmodel.data.reading.read_actions`.
    Raises: FileNotFoundError; ImportError without pyarrow or av; ValueError if the version or a
        feature is unknown, the index lacks an entry, a table or video is shorter than it says, or a
        camera has more than 8 bits a channel, which do not fit into uint8.
    """
    root = place(folder)
    info = _info(root)
    try:
        features = info["features"]
        images = [name for name, f in features.items() if f["dtype"] in ("video", "image")]
        camera = reading.choose_pixels(pixels, images, "camera", str(folder))
        usual = ["observation.state"]
        names = reading.choose_states(state, features, usual, f"features of {folder}")
        if action not in features:
            found = ", ".join(sorted(features))
            raise ValueError(f"{folder} must have a feature {action!r}, got {found}")
        in_video = features[camera]["dtype"] == "video"
        index = sorted(_index(root, info, camera, in_video), key=lambda episode: episode.number)
    except KeyError as error:
        raise ValueError(f"the index of {folder} is damaged, it lacks {error}") from error
    if not index:
        raise ValueError(f"{folder} must hold at least one episode, got none")
    actions, states = [], []
    for table, some in groupby(index, key=lambda episode: episode.table):
        for rows in _read(table, list(dict.fromkeys([action, *names])), list(some)):
            actions.append(rows[action].reshape(len(rows[action]), -1))
            states.append([rows[name].astype(np.float32) for name in names])
    lengths = np.array([episode.length for episode in index])
    stored = np.vstack(actions)
    taken = reading.read_actions(stored, lengths, folder, integers=integers, shift=shift)
    kept = [index[e] for e in taken.kept.tolist()]
    read = partial(_frames, kept, camera, float(info["fps"]))
    return reading.episodes_of(read, read(0).shape[1:], taken, lengths, states)


def lerobot_columns(folder: str | Path) -> list[Column]:
    """Features of a LeRobot folder, shapes of a single step."""
    features = _info(place(folder))["features"]
    return [Column(name, tuple(f["shape"]), f["dtype"], "") for name, f in features.items()]


class _Episode(NamedTuple):
    """The files of one episode."""

    number: int
    length: int  #: rows
    table: Place  #: parquet file that holds them, alone or among others
    video: Place | None  #: mp4 file, or None if images are in the table
    start: float  #: seconds into the video


def _info(root: Place) -> dict[str, Any]:
    if not (root / _INFO).is_file():
        raise FileNotFoundError(f"there is no LeRobot data set at {root}: no {_INFO}")
    try:
        info: dict[str, Any] = json.loads((root / _INFO).read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        missing = {"features", "fps", "data_path"} - set(info)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{root / _INFO} is damaged or of no data set: {error!r}") from error
    if not version.startswith(("v2.", "v3.")):
        raise ValueError(f"codebase_version must be v2.x or v3.x, got {version} in {root}")
    if missing:
        raise ValueError(f"{root / _INFO} lacks {', '.join(sorted(missing))}")
    return info


def _index(root: Place, info: dict[str, Any], camera: str, in_video: bool) -> Iterator[_Episode]:
    """Every episode: v2 has one file for each, v3 several in a file."""
    is_v2, at = info["codebase_version"].startswith("v2."), f"videos/{camera}"
    for row in _rows(root, at if in_video else None, is_v2=is_v2):
        e, start, film = row["episode_index"], 0.0, None
        if is_v2:
            where = {"episode_chunk": e // info["chunks_size"], "episode_index": e}
            in_film = where
        else:
            where = {key: row[f"data/{key}"] for key in ("chunk_index", "file_index")}
            in_film = {key: row.get(f"{at}/{key}") for key in where}
            start = float(row.get(f"{at}/from_timestamp", 0.0))
        if in_video:
            film = root / info["video_path"].format(**in_film, video_key=camera)
        yield _Episode(e, row["length"], root / info["data_path"].format(**where), film, start)


def _rows(root: Place, film: str | None, *, is_v2: bool) -> Iterator[dict[str, Any]]:
    if is_v2:
        lines = (root / "meta/episodes.jsonl").read_text(encoding="utf-8").splitlines()
        yield from map(json.loads, filter(None, lines))
        return
    parquet = need("pyarrow.parquet", "lerobot", "reading LeRobot data sets")
    names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    if film is not None:
        names += [f"{film}/{key}" for key in ("chunk_index", "file_index", "from_timestamp")]
    index: Iterable[Any] = (root / "meta/episodes").glob("*/*.parquet")
    for file in sorted(index, key=str):
        with file.open("rb") as raw:
            yield from parquet.ParquetFile(raw).read(columns=names).to_pylist()


def _read(table: Place, names: list[str], episodes: list[_Episode]) -> list[dict[str, Any]]:
    """The rows of each episode, columns [L, …] by name; the table is read once for all."""
    parquet = need("pyarrow.parquet", "lerobot", "reading LeRobot data sets")
    if not table.is_file():
        raise FileNotFoundError(f"episode {episodes[0].number} must lie in {table}, got no file")
    ours = [("episode_index", "in", [episode.number for episode in episodes])]
    with table.open("rb") as raw:
        rows = parquet.read_table(raw, columns=["episode_index", *names], filters=ours)
    whose = np.asarray(rows["episode_index"])
    columns = {name: np.asarray(rows[name].to_pylist()) for name in names}
    found = []
    for episode in episodes:
        mine = whose == episode.number
        if mine.sum() != episode.length:
            rule = f"episode {episode.number} must have {episode.length} rows"
            raise ValueError(f"{rule}, got {mine.sum()} in {table}; {_REMEDY}")
        found.append({name: column[mine] for name, column in columns.items()})
    return found


def _frames(episodes: list[_Episode], camera: str, fps: float, e: int) -> NDArray[np.uint8]:
    """The frames of one episode, [L, H, W, 3]."""
    episode = episodes[e]
    if episode.video is not None:
        return _video(episode, episode.video, fps, camera)
    (rows,) = _read(episode.table, [camera], [episode])
    return np.stack([_image(image, episode.table, camera) for image in rows[camera]])


def _image(image: dict[str, Any], table: Place, camera: str) -> NDArray[np.uint8]:
    if image["bytes"] is None:
        raise ValueError(f"images must be stored inside {table}, got the path {image['path']}")
    picture = Image.open(io.BytesIO(image["bytes"]))
    if picture.mode[0] in "IF":  # of 16 or 32 bits, which RGB would cut off at 255
        raise _too_deep(camera, f"pictures of mode {picture.mode}", table)
    return np.asarray(picture.convert("RGB"))


def _too_deep(camera: str, found: str, path: Place) -> ValueError:
    remedy = "store it as 8 bits, with the values scaled, or name another with --pixels"
    rule = f"camera {camera!r} must have 8 bits a channel"
    return ValueError(f"{rule}, got {found} in {path}; {remedy}")


def _video(episode: _Episode, path: Place, fps: float, camera: str) -> NDArray[np.uint8]:
    """Decode the episode's part of a video, from the key frame before it."""
    av = need("av", "lerobot", "decoding videos")
    number, length = episode.number, episode.length
    if not path.is_file():
        raise FileNotFoundError(f"episode {number} must lie in {path}, got no file")
    frames: list[NDArray[np.uint8]] = []
    with path.open("rb") as raw, av.open(raw) as container:
        stream = container.streams.video[0]
        depth = max((part.bits for part in stream.format.components), default=8)
        if depth > 8:
            raise _too_deep(camera, f"{depth} ({stream.format.name})", path)
        stream.thread_type = "AUTO"
        container.seek(int(episode.start / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            # Time stamps are multiples of 1 / fps up to rounding.
            if frame.time >= episode.start - 0.5 / fps:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == length:
                return np.stack(frames)
    rule = f"episode {number} must have {length} frames"
    raise ValueError(f"{rule}, got {len(frames)} in {path}; {_REMEDY}")
