"""Truths of the Minari reader, on small data sets made here."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.data import Episodes
from worldmodel.data.minari import is_minari, minari_columns, open_minari
from worldmodel.data.opening import open_episodes

minari = pytest.importorskip("minari", reason="sigreg[minari] is not installed")
pytest.importorskip("h5py", reason="sigreg[data] is not installed")
spaces = pytest.importorskip("gymnasium.spaces", reason="sigreg[minari] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

LENGTHS = [6, 3, 9]
IMAGE = (0, 255, (16, 16, 3), np.uint8)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Episodes -> a Minari data set on disk: its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def build(observations: list[Any], actions: list[Any], space: Any, action_space: Any) -> Path:
        buffers = [
            minari.data_collector.EpisodeBuffer(
                observations=seen,
                actions=done,
                rewards=[0.0] * len(done),
                terminations=[False] * len(done),
                truncations=[False] * (len(done) - 1) + [True],
                infos={},
            )
            for seen, done in zip(observations, actions, strict=True)
        ]
        minari.create_dataset_from_buffers(
            "test/counter-v0",
            buffers,
            observation_space=space,
            action_space=action_space,
            jpeg_encoding=False,
        )
        return tmp_path / "test" / "counter-v0"

    return build


def test_observations_and_actions_fall_into_rows(
    make: Callable[..., Path],
    counter_walks: Callable[[list[int]], list[Any]],
    counter_world: Callable[[list[int]], Episodes],
) -> None:
    """T + 1 observations around T actions become T + 1 rows, the last without an action."""
    walks = counter_walks(LENGTHS)
    space = spaces.Dict(
        {
            "camera": spaces.Dict({"top": spaces.Box(*IMAGE)}),
            "state": spaces.Box(-1e3, 1e3, (3,), np.float32),
        }
    )
    seen = [{"camera": {"top": w.frames.transpose(0, 2, 3, 1)}, "state": w.states} for w in walks]
    folder = make(seen, [w.actions for w in walks], space, spaces.Box(-1e3, 1e3, (2,), np.float32))
    assert is_minari(folder)
    episodes, wanted = open_episodes(folder), counter_world(LENGTHS)
    rows = torch.arange(sum(LENGTHS))
    assert torch.equal(episodes.frames[rows], wanted.frames[rows])
    torch.testing.assert_close(episodes.actions, wanted.actions, equal_nan=True)
    assert torch.equal(episodes.lengths, wanted.lengths)
    assert episodes.states is not None
    assert wanted.states is not None
    assert torch.equal(episodes.states, wanted.states)
    assert episodes.num_missing == len(LENGTHS)

    by_id = open_episodes("test/counter-v0", pixels="camera/top", state=["state"])
    assert torch.equal(by_id.frames[rows], wanted.frames[rows])
    copy = pickle.loads(pickle.dumps(by_id))
    assert torch.equal(copy.frames[rows[:4]], wanted.frames[rows[:4]])
    names = [column.name for column in minari_columns(folder)]
    assert names == ["observations/camera/top", "observations/state", "actions"]
    with pytest.raises(ValueError, match=r"pixels must name one image.*got 'state' and images"):
        open_minari(folder, pixels="state")
    with pytest.raises(ValueError, match=r"state must name observations.*got 'speed'"):
        open_minari(folder, state="speed")
    with pytest.raises(ValueError, match="has one action, got action 'a'"):
        open_episodes(folder, action="a")


def test_discrete_actions_become_one_hot(
    make: Callable[..., Path], counter_walks: Callable[[list[int]], list[Any]]
) -> None:
    """Action n of N is the n-th unit vector; an image alone needs no name."""
    (walk,) = counter_walks([5])
    folder = make(
        [walk.frames.transpose(0, 2, 3, 1)],
        [np.asarray([2, 0, 1, 2])],
        spaces.Box(*IMAGE),
        spaces.Discrete(3),
    )
    episodes = open_minari(folder)
    assert torch.equal(episodes.actions[:-1], torch.eye(3)[[2, 0, 1, 2]])
    assert episodes.states is None


Walks = Callable[[list[int]], list[Any]]


def change(folder: Path, number: int, column: str, values: Any) -> None:
    """Write other values into a column of an episode."""
    with pytest.importorskip("h5py").File(folder / "data" / "main_data.hdf5", "r+") as file:
        episode = file[f"episode_{number}"]
        del episode[column]
        episode[column] = values
        episode.attrs["total_steps"] = len(episode["actions"])


def test_an_episode_that_lacks_an_action_locks_no_other_away(
    make: Callable[..., Path], counter_walks: Walks
) -> None:
    """It is left out with a warning that names it; where all lack one, that is said."""
    walks = counter_walks([5, 4, 3])
    seen = [walk.frames.transpose(0, 2, 3, 1) for walk in walks]
    done = [np.asarray([2, 0, 1, 2]), np.asarray([1, 0, 2]), np.asarray([2, 1])]
    folder = make(seen, done, spaces.Box(*IMAGE), spaces.Discrete(3))
    change(folder, 1, "actions", np.asarray([1, 0]))
    with pytest.warns(RuntimeWarning, match=r"1 of 3 episodes of .* left out.* missing.*: 1$"):
        episodes = open_minari(folder)
    assert episodes.lengths.tolist() == [5, 3]
    assert torch.equal(episodes.actions[5:7], torch.eye(3)[[2, 1]])
    assert np.array_equal(episodes.frames[torch.arange(5, 8)].numpy(), walks[2].frames)
    change(folder, 0, "actions", np.asarray([1, 0]))
    change(folder, 2, "actions", np.asarray([], np.int64))
    with pytest.raises(ValueError, match=r"T \+ 1 .*, got 5 and 2 in episode 0 of "):
        open_minari(folder)


def test_frames_of_another_size_are_refused(
    make: Callable[..., Path], counter_walks: Walks
) -> None:
    """One size for all; the error names the episode."""
    (walk,) = counter_walks([4])
    one = walk.frames.transpose(0, 2, 3, 1)
    done = [np.asarray([1, 0, 2])] * 2
    folder = make([one, one], done, spaces.Box(*IMAGE), spaces.Discrete(3))
    change(folder, 1, "observations", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"\[16, 16, 3\] in episode 0, got \[8, 8, 3\] in episode 1"
    ):
        open_minari(folder)


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Neither a folder of no kind we know nor an absent id passes for a data set."""
    with pytest.raises(FileNotFoundError, match="no Minari data set at"):
        open_episodes("nobody/nothing-v7")
    with pytest.raises(FileNotFoundError, match=r"no data set at .*absent\.h5"):
        open_episodes(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match="must be an HDF5 file, a LeRobot folder"):
        open_episodes(tmp_path)
