"""Truths about data as people really have them, and about the remedies that errors name."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from planners import MPC, PredictiveSampling
from sigreg import SIGReg
from worldmodel import Batch, goal_cost, goals, jepa_loss, presets
from worldmodel.apps.cli import main
from worldmodel.apps.evaluate.policies import policy_of
from worldmodel.apps.parsing import complete
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import PlannerSettings, TrainSettings
from worldmodel.apps.train.material import open_material
from worldmodel.data import ActionScale, Episodes, open_hdf5
from worldmodel.data.frames import in_colour, is_channels_last
from worldmodel.data.opening import open_episodes
from worldmodel.heads import fit_head
from worldmodel.study import score_guesses
from worldmodel.worlds import open_world

TINY = (
    "steps=2", "batch_size=8", "num_proj=8", "workers=0", "device=cpu", "encoder.dim=8",
    "encoder.projector_dim=8", "encoder.width=4", "action_encoder.dim=8", "predictor.dim=8",
    "predictor.depth=1", "predictor.mlp_dim=8", "predictor.projector_dim=8",
)  # fmt: skip


def store(path: Path, lengths: list[int], **columns: Any) -> Path:
    """A file of episodes in the published layout, with noise where no column is given."""
    rows, rng = sum(lengths), np.random.default_rng(0)
    usual = {
        "pixels": rng.integers(0, 256, (rows, 16, 16, 3), np.uint8),
        "action": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        for name, values in (usual | columns).items():
            file[name] = values
        file["ep_len"], file["ep_offset"] = lengths, np.cumsum([0, *lengths[:-1]])
    return path


def run(*words: object) -> int:
    """The command line, in this process."""
    return main([str(word) for word in words])


def train(data: Path, out: Path, *more: str) -> int:
    """A tiny run."""
    return run("train", "--data", data, "--out", out, *TINY, *more)


def remedied(said: str, path: Path) -> Path:
    """Do what a message tells: run the `worldmodel data convert` in it on this file."""
    (words,) = re.findall(r"worldmodel (data convert IN OUT\.h5[^;]*?)(?: helps| keeps| moves|$)",
                          said.strip())  # fmt: skip
    out = path.with_name("remedied.h5")
    assert run(*[{"IN": path, "OUT.h5": out}.get(word, word) for word in shlex.split(words)]) == 0
    return out


# --- pictures ---


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((16, 16, 1), [0, 0, 0]), ((16, 16), [0, 0, 0]), ((16, 16, 4), [0, 1, 2]),
     ((16, 20, 3), [0, 1, 2]), ((9, 16, 16), [6, 7, 8]), ((16, 16, 6), [3, 4, 5]),
     ((2, 16, 16), [1, 1, 1])],
)  # fmt: skip
def test_what_an_error_of_pictures_names_makes_a_file_that_trains(
    shape: tuple[int, ...], wanted: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Grey, alpha, stacks and oblongs are refused with a command whose file is taken."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, *shape), np.uint8)
    path = store(tmp_path / "odd.h5", [30, 30, 30], pixels=pixels)
    assert run("data", "inspect", path, "--sheet", tmp_path / "sheet.png") == 0
    assert train(path, tmp_path / "run") == 2
    made = remedied(capsys.readouterr().err, path)
    assert train(made, tmp_path / "run") == 0
    if shape[0] != 16 or shape[1:2] == (16,):
        channels = pixels[:, None] if pixels.ndim == 3 else pixels
        if pixels.ndim == 4 and is_channels_last(shape):
            channels = pixels.transpose(0, 3, 1, 2)
        found = open_hdf5(made).frames[torch.arange(90)].numpy()
        assert np.array_equal(found, channels[:, wanted])


def test_channels_can_be_named_by_number(tmp_path: Path) -> None:
    """`--channels` takes three numbers too, such as the newest of four grey frames."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 16, 16, 4), np.uint8)
    path = store(tmp_path / "stack.h5", [30, 30], pixels=pixels)
    assert run("data", "convert", path, tmp_path / "a.h5", "--channels", "3,3,3") == 0
    found = open_hdf5(tmp_path / "a.h5").frames[torch.arange(60)].numpy()
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2)[:, [3, 3, 3]])
    for wrong in ("3,3", "1,2,4", "bgr"):
        assert run("data", "convert", path, tmp_path / "b.h5", "--channels", wrong) == 2


def test_channels_are_found_and_made_colour() -> None:
    """1, 3 and 4 are channels wherever they stand; else the fewer are; colour takes the newest."""
    assert [is_channels_last(s) for s in ((9, 16, 16), (8, 8, 9), (64, 64, 12), (3, 64, 64))] == [
        False, False, True, False,
    ]  # fmt: skip
    assert [in_colour(n) for n in (1, 2, 3, 4, 6)] == [
        [0, 0, 0], [1, 1, 1], [0, 1, 2], [0, 1, 2], [3, 4, 5],
    ]  # fmt: skip


def test_compressed_grey_pictures_without_a_channel_axis_are_read(tmp_path: Path) -> None:
    """[R, H, W] through h5py is one channel, as it is where the file is mapped."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, 16, 16), np.uint8)
    path = store(tmp_path / "grey.h5", [20])
    with h5py.File(path, "r+") as file:
        del file["pixels"]
        file.create_dataset("pixels", data=pixels, compression="gzip")
    found = open_hdf5(path).frames[torch.arange(20)].numpy()
    assert np.array_equal(found[:, 0], pixels)


# --- whole numbers ---


def test_whole_numbers_are_choices_in_a_file_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key numbers become one-hot, however they are stored; inspect, train and a study tell it."""
    keys = np.random.default_rng(0).integers(0, 4, 90)
    keys[[29, 59, 89]] = -1  # a filler where nothing was done
    path = store(tmp_path / "keys.h5", [30, 30, 30], action=keys)
    episodes = open_hdf5(path)
    assert episodes.choices == (4,)
    assert torch.equal(episodes.actions[:29], torch.eye(4)[keys[:29]])
    assert run("data", "inspect", path, "--sheet", tmp_path / "sheet.png") == 0
    assert "choices of 4 options, one-hot" in capsys.readouterr().out
    assert train(path, tmp_path / "run") == 0
    assert "choices of 4 options, one-hot" in "".join(capsys.readouterr())
    assert run("data", "convert", path, tmp_path / "n.h5", "--integers", "numbers") == 0
    assert open_hdf5(tmp_path / "n.h5").actions[:29, 0].tolist() == keys[:29].tolist()
    both = np.stack([keys.clip(0), 1 - keys.clip(0, 1)], 1).astype(np.int16)
    assert open_hdf5(store(tmp_path / "two.h5", [90], action=both)).choices == (4, 2)


def test_whole_numbers_that_are_too_many_to_be_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ticks of a motor are refused with a command that keeps them as numbers."""
    ticks = np.random.default_rng(0).integers(0, 4096, (90, 2))
    path = store(tmp_path / "ticks.h5", [30, 30, 30], action=ticks)
    assert train(path, tmp_path / "run") == 2
    made = remedied(capsys.readouterr().err, path)
    assert open_hdf5(made).actions.tolist() == ticks.tolist()
    assert train(made, tmp_path / "run") == 0


def test_truth_values_are_numbers(tmp_path: Path) -> None:
    """Buttons stored as truth values are 0 and 1, one column each."""
    pressed = np.random.default_rng(0).integers(0, 2, (30, 3)).astype(bool)
    episodes = open_hdf5(store(tmp_path / "b.h5", [30], action=pressed))
    assert episodes.actions.tolist() == pressed.astype(float).tolist()
    assert episodes.choices == ()


# --- bad records among good ones ---


@pytest.mark.parametrize("bad", ["one row", "no row", "NaN", "infinite"])
def test_one_bad_episode_locks_no_other_away(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is left out with a warning that names it; inspect, convert and train work on the rest."""
    lengths = [30, {"one row": 1, "no row": 0}.get(bad, 30), 30, 30]
    action = np.random.default_rng(0).normal(size=(sum(lengths), 2)).astype(np.float32)
    if bad in ("NaN", "infinite"):
        action[35] = np.nan if bad == "NaN" else np.inf
    states = np.arange(sum(lengths), dtype=np.float32)[:, None]
    path = store(tmp_path / "mixed.h5", lengths, action=action, state=states)
    with pytest.warns(RuntimeWarning, match=r"1 of 4 episodes of .*mixed.h5 are left out.*: 1$"):
        episodes = open_hdf5(path)
    assert episodes.lengths.tolist() == [30, 30, 30]
    rest = [r for r in range(sum(lengths)) if not 30 <= r < 30 + lengths[1]]
    assert episodes.states is not None
    assert episodes.states[:, 0].tolist() == rest
    with h5py.File(path) as file:
        pixels = file["pixels"][()][rest].transpose(0, 3, 1, 2)
    assert np.array_equal(episodes.frames[torch.arange(90)].numpy(), pixels)
    told = "worldmodel: warning: 1 of 4 episodes"
    words = ("-m", "worldmodel", "data", "inspect", str(path), "--sheet", str(tmp_path / "s.png"))
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told in done.stderr
    with pytest.warns(RuntimeWarning, match="left out"):
        assert run("data", "convert", path, tmp_path / "clean.h5") == 0
    with pytest.warns(RuntimeWarning, match="left out"):
        assert train(path, tmp_path / "run") == 0
    assert len(open_hdf5(tmp_path / "clean.h5")) == 3


def test_actions_beside_the_frame_they_led_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A NaN in each first row is explained, and the command in the error moves actions up."""
    action = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)
    action[::30] = np.nan
    path = store(tmp_path / "late.h5", [30, 30, 30], action=action)
    assert run("data", "inspect", path, "--sheet", tmp_path / "sheet.png") == 2
    said = capsys.readouterr().err
    assert "beside the frame it led to" in said
    episodes = open_hdf5(remedied(said, path))
    for e in range(3):
        assert np.array_equal(
            episodes.actions[30 * e : 30 * e + 29], action[30 * e + 1 : 30 * e + 30]
        )
        assert episodes.actions[30 * e + 29].isnan().all()
    # Of one such episode nobody can tell; it is left out as others are.
    action = np.nan_to_num(action)
    action[0] = np.nan
    with pytest.warns(RuntimeWarning, match=r"left out.*: 0$"):
        assert len(open_hdf5(store(tmp_path / "one.h5", [30, 30, 30], action=action))) == 2


@pytest.mark.parametrize("seed", range(6))
def test_episodes_too_short_for_a_window_are_not_split(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides of the split hold a window whatever the seed, and the others are counted."""
    lengths = [6] * 9 + [30, 31] + [7] * 5
    path = store(tmp_path / "mixed.h5", lengths)
    told = complete(TrainSettings, "train", {"data": str(path), "out": "run", "seed": seed})
    material = open_material(told)
    assert sorted([len(material.train), len(material.held_out)]) == [11, 12]
    assert "14 of 16 episodes are shorter than a window" in material.notes[0]
    if seed == 0:
        assert train(path, tmp_path / "run", "num_frames=2", "batch_size=4") == 0
        assert "14 of 16 episodes are shorter" in "".join(capsys.readouterr())


def test_too_few_long_episodes_say_which_length_is_needed(tmp_path: Path) -> None:
    """The error names the longest of all episodes, and how many are too short."""
    path = store(tmp_path / "short.h5", [6, 30, 7])
    told = complete(TrainSettings, "train", {"data": str(path), "out": "run"})
    with pytest.raises(
        ValueError, match=r"2 of 3 episodes are shorter.* = 20 rows, the longest has 30"
    ):
        open_material(told)


# --- controls that tell nothing ---


def resting(units: float = 1.0) -> Episodes:
    """Two episodes whose second control is always 0.5, the first within ±units."""
    actions = torch.randn(60, 2).clamp(-1, 1) * units
    actions[:, 1] = 0.5
    return Episodes(torch.zeros(60, 3, 8, 8, dtype=torch.uint8), actions, torch.tensor([30, 30]))


@pytest.mark.parametrize("units", [1e-30, 1e-12, 9e-7, 1.0, 1e12])
def test_a_control_moves_in_whatever_units(units: float) -> None:
    """Its spread is compared with the rounding of its values, not with a number of ours."""
    episodes = resting(units)
    scale = ActionScale.fit(episodes)
    assert scale.held == [1]
    moved = scale.normalise(episodes.actions)[:, 0]
    assert float(moved.std(correction=0)) == pytest.approx(1, abs=1e-3)
    jitter = resting()
    jitter.actions[::2, 1] = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert ActionScale.fit(jitter).held == [1]


@pytest.mark.parametrize("units", [1e-15, 1e-9, 1e9])
def test_probes_read_states_in_whatever_units(units: float) -> None:
    """What a head says, and its error, scale with the states it was fitted on."""
    z = torch.randn(60, 4)
    y = z[:, :2] + 0.1 * torch.randn(60, 2)
    head, scaled = fit_head(z, y, (8,)), fit_head(z, y * units, (8,))
    torch.testing.assert_close(scaled(z) / units, head(z), atol=1e-5, rtol=1e-4)
    episode = torch.arange(60) // 10
    one = score_guesses(head(z), y, episode, y.std(0))[0]
    other = score_guesses(scaled(z), y * units, episode, (y * units).std(0))[0]
    assert other.mse.value == pytest.approx(one.mse.value, rel=1e-3)
    assert other.r2.value == pytest.approx(one.r2.value, rel=1e-3)


def test_a_control_that_never_moved_is_held_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training says so, the run keeps it, and its policy warns."""
    action = np.random.default_rng(0).uniform(-1, 1, (90, 2)).astype(np.float32)
    action[:, 1] = 0.25
    path = store(tmp_path / "still.h5", [30, 30, 30], action=action)
    assert train(path, tmp_path / "run") == 0
    said = "action 1 (always 0.25) never moved in the training data: plans hold it there"
    assert said in "".join(capsys.readouterr())
    found = open_run(tmp_path / "run")
    assert found.scale.held == [1]
    with pytest.warns(RuntimeWarning, match=re.escape(said)):
        policy_of(found, open_world("two-room"), PlannerSettings())


# --- pictures of more than eight bits ---


def test_no_reader_squeezes_more_than_eight_bits(tmp_path: Path) -> None:
    """Cameras of 16 or 32 bits are refused by name and mode; 8 bits of any mode are read."""
    pytest.importorskip("pyarrow", reason="sigreg[lerobot] is not installed")
    from worldmodel.data.lerobot import _image

    def picture(mode: str, kind: str) -> dict[str, Any]:
        out = io.BytesIO()
        Image.new(mode, (8, 8)).save(out, kind)
        return {"bytes": out.getvalue(), "path": "frame"}

    for mode, kind in (("I;16", "PNG"), ("F", "TIFF"), ("I", "TIFF")):
        with pytest.raises(ValueError, match=rf"camera 'depth' must have 8 bits.* mode {mode}"):
            _image(picture(mode, kind), tmp_path, "depth")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        assert _image(picture(mode, "PNG"), tmp_path, "depth").shape == (8, 8, 3)


# --- states that are not known ---


def test_states_that_are_missing_are_counted_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """inspect counts rows; manifest draws from the other episodes and says so; render refuses."""
    path = tmp_path / "walks.h5"
    words = ["--env", "two-room", "--episodes", "6", "--length", "40", "--size", "32", "--out"]
    assert run("data", "collect", *words, path) == 0
    with h5py.File(path, "r+") as file:
        file["state"][45:48] = np.nan
    capsys.readouterr()
    assert run("data", "inspect", path, "--sheet", tmp_path / "sheet.png") == 0
    assert re.search(r"NaN states +3 rows", capsys.readouterr().out)
    words = f"--env two-room --data {path} --pairs 20 --offset 10 --out".split()
    assert run("manifest", *words, tmp_path / "m.json") == 0
    said = "".join(capsys.readouterr())
    assert "1 episodes are left out: their states hold NaN or infinity" in said
    assert "5 of 6 episodes" in said
    assert run("data", "render", path, tmp_path / "big.h5", "--size", 64) == 2
    assert "those of episode 1 are not" in capsys.readouterr().err
    with h5py.File(path, "r+") as file:
        file["state"][:] = np.nan
    assert run("manifest", *words, tmp_path / "n.json") == 2
    assert "states must be finite" in capsys.readouterr().err


def test_a_study_leaves_unknown_states_out_and_says_so(tmp_path: Path) -> None:
    """Episodes with NaN in their states, or the states where every episode has some."""
    from worldmodel.apps.study.command import gather_material

    states = np.random.default_rng(0).normal(size=(270, 2)).astype(np.float32)
    path = store(tmp_path / "train.h5", [30] * 3)
    assert train(path, tmp_path / "run") == 0
    found = open_run(tmp_path / "run")
    action = np.random.default_rng(5).normal(size=(270, 2)).astype(np.float32)
    states[35, 1] = np.nan
    some = store(tmp_path / "some.h5", [30] * 9, state=states, action=action)
    given = gather_material(found, str(some), 10, 0)
    assert "1 episodes hold NaN or infinite states; these episodes are left out." in given.notes
    assert given.fit is not None
    assert all(bool(s.states.isfinite().all()) for s in (given.fit, given.test))  # type: ignore[union-attr]
    assert len(given.fit.z) + len(given.test.z) == 8
    states[::30] = np.nan
    none = store(tmp_path / "none.h5", [30] * 9, state=states, action=action)
    given = gather_material(found, str(none), 10, 0)
    assert "9 episodes hold NaN or infinite states; all states are left out." in given.notes
    assert given.test.states is None


# --- paths ---


def test_a_run_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is kept as it reads from anywhere, in train, in evaluate's manifest and in study."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    store(here / "w.h5", [30] * 3)
    monkeypatch.chdir(here)
    assert train(Path("w.h5"), Path("run")) == 0
    monkeypatch.chdir(there)
    assert run("train", "--resume", "--out", here / "run", "--steps", 4) == 0
    assert open_run(here / "run").data == str(here / "w.h5")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_an_action_space_of_many_choices_is_one_meaning_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter_walks: Callable[[list[int]], list[Any]]
) -> None:
    """Minari's MultiDiscrete and the same whole numbers in HDF5 become the same actions."""
    minari = pytest.importorskip("minari", reason="sigreg[minari] is not installed")
    spaces = pytest.importorskip("gymnasium.spaces", reason="sigreg[minari] is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (walk,) = counter_walks([6])
    keys = np.array([[0, 1], [2, 0], [1, 1], [2, 1], [0, 0]])
    episode = minari.data_collector.EpisodeBuffer(
        observations=walk.frames, actions=keys, rewards=[0.0] * 5, terminations=[False] * 5,
        truncations=[False] * 4 + [True], infos={},
    )  # fmt: skip
    minari.create_dataset_from_buffers(
        "test/keys-v0", [episode], observation_space=spaces.Box(0, 255, (3, 16, 16), np.uint8),
        action_space=spaces.MultiDiscrete([3, 2]), jpeg_encoding=False,
    )  # fmt: skip
    found = open_episodes("test/keys-v0")
    path = store(
        tmp_path / "keys.h5", [6], action=np.vstack([keys, keys[:1]]),
        pixels=walk.frames.transpose(0, 2, 3, 1),
    )  # fmt: skip
    same = open_episodes(path)
    assert found.choices == same.choices == (3, 2)
    assert torch.equal(found.actions[:5], same.actions[:5])
    assert found.actions[5].isnan().all()
    rows = torch.arange(6)
    assert torch.equal(found.frames[rows], same.frames[rows])
    numbers = open_episodes("test/keys-v0", integers="numbers")
    assert numbers.actions[:5].tolist() == keys.tolist()


def test_a_controller_of_a_held_control_never_moves_it() -> None:
    """Planned or at rest, a control whose std is 0 stays at its mean, moved into the box."""
    from planners import Bounds

    bounds = Bounds([-1.0, -1.0, 0.0], [1.0, 1.0, 0.3], mean=[0.1, 0.5, 0.5], std=[0.3, 0.0, 0.0])
    mpc = MPC(PredictiveSampling(20), horizon=4, action_dim=6, block=2, iterations=3, bounds=bounds)
    acted = mpc.act(lambda actions: -actions.sum((-1, -2)))
    assert acted[..., 1].tolist() == [[0.5, 0.5]]
    assert torch.allclose(acted[..., 2], torch.tensor(0.3))
    assert float(acted[..., 0].max()) > 0.2


def test_arrays_are_taken_wherever_a_tensor_is() -> None:
    """NumPy's arrays, doubles among them, mean the same tensors in every function of the model."""
    model, rng = presets.small(2, image_size=16).eval(), np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 3, 3, 16, 16), np.uint8)
    actions, plans = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 5, 3, 2))
    low, high = np.zeros(2), np.ones(2)
    z = model.encode(frames).detach()
    futures = model.imagine().look(frames[:, :1])(plans)

    def read(z: torch.Tensor) -> torch.Tensor:
        return z[..., :2]

    doors: list[Callable[[Any], torch.Tensor]] = [
        lambda of: model.predict(of(z.numpy()), of(actions)),
        lambda of: model.rollout(of(z.numpy()), of(actions)),
        lambda of: goal_cost(
            model, of(frames), of(frames[:, 0]), past_actions=of(actions[:, 1:])
        )(of(plans)),
        lambda of: goals.near(of(z[:, 0].numpy().astype(float)))(futures),
        lambda of: goals.near(z[:, 0], weights=of(np.ones(3)))(futures),
        lambda of: goals.state(read, of(low), scale=of(high))(futures),
        lambda of: goals.region(read, of(low), of(high))(futures),
        lambda of: goals.avoid(read, of(low), of(high))(futures),
        lambda of: fit_head(of(z[:, 0].numpy().repeat(40, 0)), of(rng.normal(size=(80, 2)))).centre,
        lambda of: jepa_loss(model, Batch(of(frames), of(actions)), SIGReg()).prediction,
        lambda of: Batch(of(frames), of(actions)).to("cpu").actions.float(),
    ]  # fmt: skip

    def tensor(value: Any) -> torch.Tensor:
        found = torch.as_tensor(value)
        return found.float() if found.dtype == torch.float64 else found

    for number, door in enumerate(doors):
        assert torch.equal(door(lambda value: value), door(tensor)), number
