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


def test_a_run_that_is_none_is_refused_by_the_file_at_fault(tmp_path: Path) -> None:
    """Absent, damaged and foreign folders each name the file."""
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        open_run(tmp_path / "nowhere")
    write(tmp_path / "run")
    (tmp_path / "run" / "episodes.json").write_text("{")
    with pytest.raises(ValueError, match=r"episodes\.json is damaged"):
        open_run(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["extra"]["frameskip"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks frameskip"):
        open_run(tmp_path / "run")


def test_an_episode_keeps_its_name_at_every_frame_size() -> None:
    """The name depends on the actions that lead somewhere, and on nothing else."""
    small, large = episode_digests(two_episodes(8)), episode_digests(two_episodes(16))
    assert small == large
    assert small[0] != small[1]
    assert small[0] == action_digest(np.arange(6, dtype=np.float32).reshape(3, 2))
