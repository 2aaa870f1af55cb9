"""Truths of the LeRobot reader, on small folders of versions 2 and 3 made here."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel.data import Episodes
from worldmodel.data.lerobot import lerobot_columns, open_lerobot
from worldmodel.data.opening import format_of, open_episodes

av = pytest.importorskip("av", reason="sigreg[lerobot] is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="sigreg[lerobot] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="sigreg[lerobot] is not installed")

LENGTHS, FPS, CAMERA = [7, 4, 12], 10, "observation.images.top"
V2 = {
    "codebase_version": "v2.1",
    "chunks_size": 2,
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
V3 = {
    "codebase_version": "v3.0",
    "chunks_size": 1000,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


def film(path: Path, frames: Any, pix_fmt: str = "yuv444p") -> None:
    """Frames [L, H, W, 3] as mp4 with key frames far apart, nearly lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "4", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def table(path: Path, walks: list[Any], first: int, *, images: bool = False) -> None:
    """Rows of consecutive episodes as parquet; an action stands in the last row too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"action": [], "observation.state": [], "episode_index": []}
    if images:
        columns[CAMERA] = []
    for e, walk in enumerate(walks, start=first):
        columns["action"] += [*walk.actions.tolist(), [1.0, 2.0]]
        columns["observation.state"] += walk.states.tolist()
        columns["episode_index"] += [e] * len(walk.frames)
        for frame in walk.frames.transpose(0, 2, 3, 1) if images else ():
            stored = io.BytesIO()
            Image.fromarray(frame).save(stored, "PNG")
            columns[CAMERA].append({"bytes": stored.getvalue(), "path": "frame.png"})
    parquet.write_table(pyarrow.table(columns), path)


def describe(root: Path, info: dict[str, Any], kind: str = "video") -> None:
    """meta/info.json."""
    features = {
        CAMERA: {"dtype": kind, "shape": [16, 16, 3]},
        "action": {"dtype": "float32", "shape": [2]},
        "observation.state": {"dtype": "float32", "shape": [3]},
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": FPS, "features": features}))


def make_v2(root: Path, walks: list[Any], *, kind: str = "video") -> None:
    """One table and one video per episode."""
    describe(root, V2, kind)
    lines = []
    for e, walk in enumerate(walks):
        where = {"episode_chunk": e // 2, "episode_index": e}
        table(root / V2["data_path"].format(**where), [walk], e, images=kind == "image")  # type: ignore[attr-defined]
        if kind == "video":
            path = root / V2["video_path"].format(**where, video_key=CAMERA)  # type: ignore[attr-defined]
            film(path, walk.frames.transpose(0, 2, 3, 1))
        lines.append(json.dumps({"episode_index": e, "tasks": [], "length": len(walk.frames)}))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")


def make_v3(root: Path, walks: list[Any]) -> None:
    """Episodes 0 and 1 share a table, 1 and 2 a video."""
    describe(root, V3)
    table(root / "data/chunk-000/file-000.parquet", walks[:2], 0)
    table(root / "data/chunk-000/file-001.parquet", walks[2:], 2)
    videos = root / "videos" / CAMERA / "chunk-000"
    film(videos / "file-000.mp4", walks[0].frames.transpose(0, 2, 3, 1))
    both = np.concatenate([walk.frames for walk in walks[1:]])
    film(videos / "file-001.mp4", both.transpose(0, 2, 3, 1))
    at = f"videos/{CAMERA}"
    columns = {
        "episode_index": [2, 0, 1],
        "length": [LENGTHS[2], LENGTHS[0], LENGTHS[1]],
        "data/chunk_index": [0, 0, 0],
        "data/file_index": [1, 0, 0],
        f"{at}/chunk_index": [0, 0, 0],
        f"{at}/file_index": [1, 0, 1],
        f"{at}/from_timestamp": [LENGTHS[1] / FPS, 0.0, 0.0],
        f"{at}/to_timestamp": [(LENGTHS[1] + LENGTHS[2]) / FPS, LENGTHS[0] / FPS, LENGTHS[1] / FPS],
    }
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize("version", ["v2", "v2 images", "v3"])
def test_both_layouts_give_the_recorded_rows(
    tmp_path: Path,
    counter_walks: Callable[[list[int]], list[Any]],
    counter_world: Callable[[list[int]], Episodes],
    version: str,
) -> None:
    """Each frame shows its own step, action and episode, wherever its table and video begin."""
    walks, wanted = counter_walks(LENGTHS), counter_world(LENGTHS)
    if version == "v3":
        make_v3(tmp_path / "set", walks)
    else:
        make_v2(tmp_path / "set", walks, kind="image" if "images" in version else "video")
    assert format_of(tmp_path / "set") == "lerobot"
    episodes = open_episodes(tmp_path / "set")
    assert episodes.lengths.tolist() == LENGTHS
    assert torch.equal(episodes.states, wanted.states)  # type: ignore[arg-type]
    leads = wanted.actions.isfinite()
    assert torch.equal(episodes.actions[leads], wanted.actions[leads])
    assert episodes.num_missing == 0  # the last action is kept as recorded
    rows = torch.arange(sum(LENGTHS)).flip(0)
    error = episodes.frames[rows].int() - wanted.frames[rows].int()
    assert error.abs().max() <= (0 if "images" in version else 4)
    steps = episodes.frames[rows][:, :, 8, 8].int()
    assert pickle.loads(pickle.dumps(episodes)).frames[rows][:, :, 8, 8].int().equal(steps)
    assert {c.name for c in lerobot_columns(tmp_path / "set")} == {
        CAMERA,
        "action",
        "observation.state",
    }


def test_what_is_missing_is_named(
    tmp_path: Path, counter_walks: Callable[[list[int]], list[Any]]
) -> None:
    """An unknown camera, feature or version, a short table and an absent video are told apart."""
    root = tmp_path / "set"
    make_v2(root, counter_walks(LENGTHS))
    with pytest.raises(ValueError, match=r"pixels must name one camera.*got 'left' and cameras"):
        open_lerobot(root, pixels="left")
    with pytest.raises(ValueError, match="must have a feature 'torque', got action"):
        open_lerobot(root, action="torque")
    meta = root / "meta/episodes.jsonl"
    lines = meta.read_text()
    meta.write_text(lines.replace('"length": 4', '"length": 5'))
    with pytest.raises(ValueError, match="episode 1 must have 5 rows, got 4"):
        open_lerobot(root)
    meta.write_text("")
    with pytest.raises(ValueError, match="at least one episode, got none"):
        open_lerobot(root)
    meta.write_text(lines)
    (root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"episode 0 must lie in .*mp4, got no file"):
        open_lerobot(root)
    info = root / "meta/info.json"
    told = info.read_text()
    for content, message in (
        (told.replace("v2.1", "v1.6"), r"must be v2.x or v3.x, got v1.6"),
        (told.replace('"fps"', '"speed"'), r"info\.json lacks fps"),
        (told[:40], r"info\.json is damaged or of no data set: JSONDecodeError"),
        ("[]", r"info\.json is damaged or of no data set: TypeError"),
    ):
        info.write_text(content)
        with pytest.raises(ValueError, match=message):
            open_lerobot(root)
    with pytest.raises(FileNotFoundError, match="no LeRobot data set at"):
        open_lerobot(tmp_path)


@pytest.mark.parametrize("key", ["chunks_size", "video_path", '"length": 4'])
def test_an_index_with_a_hole_is_named(
    tmp_path: Path, counter_walks: Callable[[list[int]], list[Any]], key: str
) -> None:
    """What the index lacks is told in one error, whichever of its files lacks it."""
    root = tmp_path / "set"
    make_v2(root, counter_walks(LENGTHS))
    for name in ("info.json", "episodes.jsonl"):
        path = root / "meta" / name
        path.write_text(path.read_text().replace(key, key.replace("e", "i", 1)))
    with pytest.raises(ValueError, match=r"the index of .*set is damaged, it lacks '(ch|vi|le)"):
        open_lerobot(root)


def test_a_video_of_more_than_eight_bits_is_refused(
    tmp_path: Path, counter_walks: Callable[[list[int]], list[Any]]
) -> None:
    """Ten bits would be cut to eight: camera, depth and file are named."""
    root, walks = tmp_path / "set", counter_walks(LENGTHS)
    make_v2(root, walks)
    (path, *_) = sorted((root / "videos").rglob("*.mp4"))
    film(path, walks[0].frames.transpose(0, 2, 3, 1), "yuv420p10le")
    with pytest.raises(
        ValueError, match=r"images\.top' must have 8 bits .* 10 \(yuv420p10le\) in .*0\.mp4; store"
    ):
        open_lerobot(root)


def test_an_episode_unlike_its_index_is_named_and_can_be_left_out(
    tmp_path: Path, counter_walks: Callable[[list[int]], list[Any]]
) -> None:
    """The error says which; without its entry in the index the others open."""
    root = tmp_path / "set"
    make_v2(root, counter_walks(LENGTHS))
    index = root / "meta/episodes.jsonl"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0], lines[1].replace("4", "5"), lines[2]]))
    with pytest.raises(
        ValueError, match=r"episode 1 must have 5 rows, got 4 in .*take the episode out of meta/epi"
    ):
        open_lerobot(root)
    index.write_text("\n".join([lines[0], lines[2]]))
    assert open_lerobot(root).lengths.tolist() == [LENGTHS[0], LENGTHS[2]]
