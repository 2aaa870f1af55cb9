"""LeRobot data sets on the local disk, versions 2 and 3: parquet tables and mp4 videos.

Read with pyarrow and av alone, never with the lerobot package.
Source: LeRobot's documented LeRobotDataset layouts v2.0, v2.1 and v3.0.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from worldmodel._extras import need
from worldmodel.data.column import Column
from worldmodel.data.episodes import Episodes
from worldmodel.data.frames import EpisodeFrames

__all__ = ["is_lerobot", "lerobot_columns", "open_lerobot"]

_INFO = "meta/info.json"


def open_lerobot(
    folder: str | Path,
    *,
    pixels: str | None = None,
    action: str = "action",
    state: str | Sequence[str] | None = None,
) -> Episodes:
    """Episodes of a LeRobot folder.

    Row t holds observation t and action t, as recorded; the last action of an episode is kept and
    leads nowhere. Frames are decoded episode by episode, so convert to HDF5 before training.

    Args:
        folder: holds `meta/`, `data/` and `videos/`.
        pixels: camera, e.g. `observation.images.top`; may be left out if there is only one.
        action: feature with the actions.
        state: features laid side by side as `states`; by default `observation.state` if it exists.
    Returns: Episodes.
    Raises: FileNotFoundError; ImportError without pyarrow or av; ValueError if the version or a
        feature is unknown, or a table or video is shorter than the index says.
    """
    layout = _Layout.read(Path(folder))
    cameras = [k for k, f in layout.features.items() if f["dtype"] in ("video", "image")]
    chosen = cameras if pixels is None else [c for c in cameras if c == pixels]
    if len(chosen) != 1:
        raise ValueError(
            f"pixels must name one camera of {folder}, got {pixels!r} and cameras {cameras}"
        )
    if state is None:
        state = ["observation.state"] if "observation.state" in layout.features else []
    names = [state] if isinstance(state, str) else list(state)
    for name in (action, *names):
        if name not in layout.features:
            raise ValueError(
                f"{folder} must have a feature {name!r}, got {', '.join(sorted(layout.features))}"
            )
    episodes = layout.episodes(chosen[0])
    if not episodes:
        raise ValueError(f"{folder} must hold at least one episode, got none")
    tables = [_table(episode, [action, *names]) for episode in episodes]
    lengths = torch.tensor([episode.length for episode in episodes])
    read = _Decoder(chosen[0], layout.fps, episodes)
    H, W, C = read(0).shape[1:]
    return Episodes(
        EpisodeFrames(read, lengths, (C, H, W)),
        torch.from_numpy(np.vstack([table[0] for table in tables])),
        lengths,
        torch.from_numpy(np.vstack([np.hstack(t[1:]) for t in tables])) if names else None,
    )


def lerobot_columns(folder: str | Path) -> list[Column]:
    """Features of a LeRobot folder, shapes of a single step."""
    features = _Layout.read(Path(folder)).features
    return [Column(name, tuple(f["shape"]), f["dtype"], "") for name, f in features.items()]


def is_lerobot(folder: str | Path) -> bool:
    """Whether this is a LeRobot folder."""
    return (Path(folder) / _INFO).is_file()


@dataclass(frozen=True)
class _Episode:
    """Where one episode lies.

    Attributes:
        index: its number.
        length: rows.
        table: parquet file that holds them, alone or among others.
        video: mp4 file, or None if images are in the table.
        start: seconds into the video.
    """

    index: int
    length: int
    table: Path
    video: Path | None
    start: float


@dataclass(frozen=True)
class _Layout:
    """The paths of a version: v2 has one file per episode, v3 many episodes per file."""

    root: Path
    info: dict[str, Any]

    @classmethod
    def read(cls, root: Path) -> _Layout:
        """The layout of a folder, if we know its version."""
        if not (root / _INFO).is_file():
            raise FileNotFoundError(f"there is no LeRobot data set at {root}: no {_INFO}")
        try:
            info = json.loads((root / _INFO).read_text(encoding="utf-8"))
            version = str(info["codebase_version"])
            missing = {"features", "fps", "data_path"} - set(info)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{root / _INFO} is damaged or of no data set: {error!r}") from error
        if not version.startswith(("v2.", "v3.")):
            raise ValueError(f"codebase_version must be v2.x or v3.x, got {version} in {root}")
        if missing:
            raise ValueError(f"{root / _INFO} lacks {', '.join(sorted(missing))}")
        return cls(root, info)

    @property
    def features(self) -> dict[str, Any]:
        features: dict[str, Any] = self.info["features"]
        return features

    @property
    def fps(self) -> float:
        return float(self.info["fps"])

    def episodes(self, camera: str) -> list[_Episode]:
        """Every episode, in order."""
        in_video = self.features[camera]["dtype"] == "video"
        v2 = self.info["codebase_version"].startswith("v2.")
        found = self._v2(camera, in_video) if v2 else self._v3(camera, in_video)
        return sorted(found, key=lambda episode: episode.index)

    def _v2(self, camera: str, in_video: bool) -> list[_Episode]:
        lines = (self.root / "meta/episodes.jsonl").read_text(encoding="utf-8").splitlines()
        found = []
        for row in map(json.loads, filter(None, lines)):
            e = row["episode_index"]
            where = {"episode_chunk": e // self.info["chunks_size"], "episode_index": e}
            table = self.root / self.info["data_path"].format(**where)
            video = self.info["video_path"].format(**where, video_key=camera) if in_video else None
            found.append(_Episode(e, row["length"], table, video and self.root / video, 0.0))
        return found

    def _v3(self, camera: str, in_video: bool) -> list[_Episode]:
        parquet = need("pyarrow.parquet", "lerobot", "reading LeRobot data sets")
        found = []
        for file in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
            names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
            at = f"videos/{camera}"
            if in_video:
                names += [f"{at}/{key}" for key in ("chunk_index", "file_index", "from_timestamp")]
            for row in parquet.ParquetFile(file).read(columns=names).to_pylist():
                table = self.info["data_path"].format(
                    chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
                )
                video, start = None, 0.0
                if in_video:
                    start = float(row[f"{at}/from_timestamp"])
                    video = self.root / self.info["video_path"].format(
                        video_key=camera,
                        chunk_index=row[f"{at}/chunk_index"],
                        file_index=row[f"{at}/file_index"],
                    )
                found.append(
                    _Episode(row["episode_index"], row["length"], self.root / table, video, start)
                )
        return found


def _read(episode: _Episode, names: list[str]) -> Any:
    """The episode's rows of a table."""
    parquet = need("pyarrow.parquet", "lerobot", "reading LeRobot data sets")
    if not episode.table.is_file():
        raise FileNotFoundError(f"episode {episode.index} must lie in {episode.table}, got no file")
    mine = [("episode_index", "=", episode.index)]
    rows = parquet.read_table(episode.table, columns=names, filters=mine)
    if len(rows) != episode.length:
        raise ValueError(
            f"episode {episode.index} must have {episode.length} rows, got {len(rows)} in "
            f"{episode.table}"
        )
    return rows


def _table(episode: _Episode, names: list[str]) -> list[NDArray[np.float32]]:
    """Columns as float32 [L, S], each of them."""
    rows = _read(episode, names)
    return [
        np.asarray(rows[name].to_pylist(), np.float32).reshape(episode.length, -1) for name in names
    ]


@dataclass(frozen=True)
class _Decoder:
    """Reads the frames of one episode."""

    camera: str
    fps: float
    episodes: list[_Episode]

    def __call__(self, e: int) -> NDArray[np.uint8]:
        """Frames [L, H, W, 3]."""
        episode = self.episodes[e]
        if episode.video is None:
            images = _read(episode, [self.camera])[self.camera].to_pylist()
            return np.stack([_image(image, episode.table) for image in images])
        return _video(episode, episode.video, self.fps)


def _image(image: dict[str, Any], table: Path) -> NDArray[np.uint8]:
    """An image stored as bytes in the table."""
    if image["bytes"] is None:
        raise ValueError(f"images must be stored inside {table}, got the path {image['path']}")
    return np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))


def _video(episode: _Episode, path: Path, fps: float) -> NDArray[np.uint8]:
    """The episode's part of a video, from the key frame before it on."""
    av = need("av", "lerobot", "decoding videos")
    if not path.is_file():
        raise FileNotFoundError(f"episode {episode.index} must lie in {path}, got no file")
    frames: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(int(episode.start / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            # Time stamps are multiples of 1 / fps up to rounding.
            if frame.time < episode.start - 0.5 / fps:
                continue
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == episode.length:
                return np.stack(frames)
    raise ValueError(
        f"episode {episode.index} must have {episode.length} frames, got {len(frames)} in {path}"
    )
