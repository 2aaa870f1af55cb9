"""Truths about run folders and the names of episodes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel import presets
from worldmodel.apps.runs import open_run, save_run
from worldmodel.data import ActionScale, Episodes, action_digest, episode_digests


def two_episodes(size: int) -> Episodes:
    """A long and a short episode of counted actions, the last one of each leading nowhere."""
    actions = torch.arange(14.0).reshape(7, 2)
    actions[[3, 6]] = torch.nan
    frames = torch.zeros(7, 3, size, size, dtype=torch.uint8)
    return Episodes(frames=frames, actions=actions, lengths=torch.tensor([4, 3]))


def write(folder: Path) -> None:
    """A small run."""
    save_run(
        presets.small(4, image_size=32, dim=16),
        folder,
        scale=ActionScale(torch.zeros(2), torch.ones(2)),
        frameskip=2,
        world="two-room",
        trained_on=["a", "b"],
        held_out=["c"],
        settings={"seed": 3},
    )


def test_a_run_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """What save_run is told, open_run tells again."""
    write(tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert (run.frameskip, run.world, run.objective, run.data) == (2, "two-room", "lewm", None)
    assert (run.trained_on, run.held_out) == ({"a", "b"}, {"c"})
    assert run.settings == {"seed": 3}
    assert not run.model.training


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", "[" * 10**5, '{"train": "a", "held_out": []}', '{"train": [1]}', "1"]
)
def test_a_foreign_list_of_episodes_is_one_line(tmp_path: Path, text: str) -> None:
    """The message names the file and what is wrong in it."""
    write(tmp_path / "run")
    (tmp_path / "run" / "episodes.json").write_text(text)
    with pytest.raises(ValueError, match=r"episodes\.json is no list of episodes: .*") as caught:
        open_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("frameskip", None), ("frameskip", float("inf")), ("frameskip", 0), ("frameskip", "2"),
     ("world", 3), ("settings", []), ("objective", {}), ("more", 1)],
)  # fmt: skip
def test_a_run_whose_entries_are_foreign_is_one_line(
    tmp_path: Path, entry: str, value: object
) -> None:
    """The message names config.json and the entry; one that is missing is named too."""
    write(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"extra": config["extra"] | {entry: value}}))
    told = rf"config\.json must be of a run that train or demo wrote: {entry} "
    with pytest.raises(ValueError, match=told):
        open_run(tmp_path / "run")
    if config["extra"].pop(entry, None) is not None:
        path.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=rf"{entry} must be given"):
            open_run(tmp_path / "run")


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    """There is no folder, or no list of episodes in it."""
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor"):
        open_run(tmp_path / "nowhere")
    write(tmp_path / "run")
    (tmp_path / "run" / "episodes.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"there is no list of episodes at .*episodes\.json"
    ):
        open_run(tmp_path / "run")


def test_an_episode_keeps_its_name_at_every_frame_size() -> None:
    """The name depends on the actions that lead somewhere, and on nothing else."""
    small, large = episode_digests(two_episodes(8)), episode_digests(two_episodes(16))
    assert small == large
    assert small[0] != small[1]
    assert small[0] == action_digest(np.arange(6, dtype=np.float32).reshape(3, 2))
