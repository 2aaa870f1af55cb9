"""Truths of the window rule, told by a world whose frames show what led to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import resource_sharer

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from worldmodel.data import ActionScale, BatchOrder, Episodes, Windows, loader

World = Callable[[list[int]], Episodes]

STEP, LAST_ACTION, EPISODE, RESET = 0, 1, 2, 255


@pytest.mark.parametrize(("num_frames", "frameskip"), [(4, 5), (3, 1), (1, 4), (2, 3)])
def test_blocks_hold_what_happened_between_frames(
    counter_world: World, num_frames: int, frameskip: int
) -> None:
    """Frame t is step s + tk; the frame of step s + tk + j + 1 shows action j of block t."""
    lengths = [23, 20, 41, 7]
    episodes = counter_world(lengths)
    windows = Windows(episodes, num_frames=num_frames, frameskip=frameskip)
    seen = []
    for window in windows:
        shown = window.frames[:, :, 0, 0].long()
        episode, first = int(shown[0, EPISODE]), int(shown[0, STEP])
        seen.append((episode, first))
        assert shown[:, EPISODE].unique().tolist() == [episode]
        assert (shown[:, STEP] == first + frameskip * torch.arange(num_frames)).all()
        for t, block in enumerate(window.actions.unflatten(-1, (frameskip, 2))):
            for j, action in enumerate(block):
                result = first + t * frameskip + j + 1
                if result == lengths[episode]:  # behind the episode: missing, read as 0
                    assert action.tolist() == [0.0, 0.0]
                    continue
                row = int(episodes.offsets[episode]) + result
                number = float(episodes.frames[torch.tensor([row])][0, LAST_ACTION, 0, 0])
                assert action.tolist() == [number, -number]
    span = num_frames * frameskip
    assert seen == [(e, s) for e, n in enumerate(lengths) for s in range(n - span + 1)]


def test_the_last_action_of_a_block_leads_to_the_next_frame(counter_world: World) -> None:
    """Frame t + 1 shows the last action of block t; the first frame of an episode shows none."""
    window = Windows(counter_world([20]), num_frames=4, frameskip=5)[0]
    shown = window.frames[:, LAST_ACTION, 0, 0].float()
    assert shown[0] == RESET
    assert torch.equal(shown[1:], window.actions[:-1, -2])


def test_shuffling_episodes_changes_nothing_in_a_window(counter_world: World) -> None:
    """Laid out in another order, the same episodes give the same windows."""
    episodes = counter_world([21, 30, 25])
    rows = episodes.rows(order := torch.tensor([2, 0, 1]))
    assert episodes.states is not None
    shuffled = Episodes(
        episodes.frames[rows],
        episodes.actions[rows],
        episodes.lengths[order],
        episodes.states[rows],
    )
    everything = [w.batch(torch.arange(len(w))) for w in (Windows(episodes), Windows(shuffled))]
    found = [
        {(f.numpy().tobytes(), a.numpy().tobytes()) for f, a in zip(*batch, strict=True)}
        for batch in everything
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2 + 11 + 6


def test_a_window_never_leaves_its_subset(counter_world: World) -> None:
    """Windows of a subset show its episodes alone: a split by episode shares no window."""
    windows = Windows(counter_world([25] * 6), subset=torch.tensor([1, 4]))
    shown = windows.batch(torch.arange(len(windows))).frames[:, :, EPISODE].unique().tolist()
    assert shown == [1, 4]


def test_missing_actions_become_average_ones(counter_world: World) -> None:
    """NaN behind an episode is 0 after normalisation, whatever the mean."""
    episodes = counter_world([20])
    scale = ActionScale(torch.tensor([100.0, -100.0]), torch.tensor([50.0, 50.0]))
    plain, scaled = Windows(episodes)[0], Windows(episodes, scale=scale)[0]
    assert scaled.actions[-1, -2:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(scaled.actions[:-1], scale.normalise(plain.actions[:-1]))


def test_a_window_longer_than_every_episode_is_refused(counter_world: World) -> None:
    """The error says how long a window is and how long the longest episode."""
    episodes = counter_world([7, 19])
    message = r"num_frames 4 × frameskip 5 = 20 rows is longer than every episode.* has 19"
    with pytest.raises(ValueError, match=message):
        Windows(episodes)
    assert len(Windows(episodes, num_frames=4, frameskip=4)) == 4
    with pytest.raises(ValueError, match="num_frames must be an integer of at least 1, got 0"):
        Windows(episodes, num_frames=0)


def test_one_window_and_a_batch_agree(counter_world: World) -> None:
    """windows[i], a batch with i in it, and torch's own DataLoader give the same window."""
    windows = Windows(counter_world([26, 22]))
    batch = windows.batch(torch.tensor([4, 8]))
    assert batch.frames.shape == (2, 4, 3, 16, 16)
    assert batch.actions.shape == (2, 4, 10)
    for i, index in enumerate((4, 8)):
        assert torch.equal(windows[index].frames, batch.frames[i])
        assert torch.equal(windows[index].actions, batch.actions[i])
    stock = next(iter(DataLoader(windows, batch_size=len(windows))))
    assert torch.equal(stock.frames, windows.batch(torch.arange(len(windows))).frames)
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_pass_meets_every_window_once(counter_world: World) -> None:
    """Shuffled batches cover each window once per pass, in another order the next time."""
    windows = Windows(counter_world([40]), num_frames=2, frameskip=2)  # 37 windows
    batches = map(windows.batch, BatchOrder(len(windows), 12, seed=1))
    passes = [
        torch.cat([next(batches).frames[:, 0, STEP, 0, 0] for _ in range(3)]) for _ in range(2)
    ]
    assert len(passes[0].unique()) == len(passes[1].unique()) == 36
    assert not torch.equal(passes[0], passes[1])
    with pytest.raises(ValueError, match="between 1 and the 37 windows, got 38"):
        BatchOrder(len(windows), 38, seed=0)


@given(num=st.integers(4, 60), batch_size=st.integers(1, 4), seed=st.integers(0, 9), data=st.data())
def test_order_is_a_function_of_the_step(
    num: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    """A pass visits distinct windows, and an order begun later yields what the whole one does."""
    order = BatchOrder(num, batch_size, seed=seed, stop=3 * (num // batch_size))
    whole = [batch.tolist() for batch in order]
    one_pass = [index for batch in whole[: num // batch_size] for index in batch]
    assert len(set(one_pass)) == len(one_pass) == num // batch_size * batch_size
    start = data.draw(st.integers(0, len(whole)))
    later = BatchOrder(num, batch_size, seed=seed, start=start, stop=len(whole))
    assert [batch.tolist() for batch in later] == whole[start:]


def test_ranks_share_the_batch_of_one_process() -> None:
    """Laid side by side, the parts of all ranks are the batch that a single process draws."""
    alone = BatchOrder(50, 12, seed=3)
    parts = [BatchOrder(50, 12, seed=3, rank=rank, ranks=3) for rank in range(3)]
    for step in (0, 3, 4, 11):
        assert torch.equal(torch.cat([part.batch(step) for part in parts]), alone.batch(step))
    with pytest.raises(ValueError, match=r"multiple of ranks.*got 12, 5 and 0"):
        BatchOrder(50, 12, seed=3, ranks=5)
    with pytest.raises(ValueError, match="between 1 and the 50 windows, got 51"):
        BatchOrder(50, 51, seed=3)


def test_fetching_leaves_the_global_generator_alone(counter_world: World) -> None:
    """Loading draws no random number from torch's generator, so a resumed run stays in step."""
    windows = Windows(counter_world([30]))
    order = BatchOrder(len(windows), 4, seed=0, stop=2)
    before = torch.get_rng_state()
    fetched = list(loader(windows, order))
    assert torch.equal(torch.get_rng_state(), before)
    for batch, index in zip(fetched, order, strict=True):
        assert torch.equal(batch.frames, windows.batch(index).frames)


def test_workers_ask_this_process_for_nothing(counter_world: World) -> None:
    """Indices go through a pipe: a socket would speak up when a worker is killed at it."""
    windows = Windows(counter_world([30]))
    resource_sharer.stop()  # of the tests before
    assert len(list(loader(windows, BatchOrder(len(windows), 4, seed=0, stop=2), workers=1))) == 2
    assert resource_sharer._resource_sharer._listener is None  # type: ignore[attr-defined]


def test_windows_can_be_sent_to_a_worker(counter_world: World) -> None:
    """Pickled and restored, windows cut the same batches."""
    windows = Windows(counter_world([24, 22]), scale=ActionScale(torch.zeros(2), torch.ones(2)))
    copy = pickle.loads(pickle.dumps(windows))
    index = torch.tensor([0, 5])
    assert torch.equal(copy.batch(index).frames, windows.batch(index).frames)
    assert torch.equal(copy.batch(index).actions, windows.batch(index).actions)


def test_windows_hold_the_observations_they_are_told(counter_world: World) -> None:
    """Several observations of the same rows come as a mapping, by worker or batch alike."""
    plain = counter_world([7, 9])
    wrist = 255 - plain.frames[torch.arange(16)]
    force = torch.arange(16.0)[:, None].expand(16, 2)
    episodes = replace(plain, others={"wrist": wrist, "force": force})
    windows = Windows(
        episodes, num_frames=2, frameskip=2, observations=("pixels", "wrist", "force", "states")
    )
    index = torch.tensor([0, 3, 5])
    seen, actions = windows.batch(index)
    frames, same = Windows(plain, num_frames=2, frameskip=2).batch(index)
    assert isinstance(seen, dict)
    assert isinstance(frames, torch.Tensor)
    assert torch.equal(actions, same)
    assert torch.equal(seen["pixels"], frames)
    assert torch.equal(seen["wrist"], 255 - frames)
    assert torch.equal(seen["force"][:, 1] - seen["force"][:, 0], torch.full((3, 2), 2.0))
    assert plain.states is not None
    assert torch.equal(seen["states"], plain.states[seen["force"][..., 0].long()])
    one = windows[3]
    assert torch.equal(one.frames["wrist"], seen["wrist"][1])  # type: ignore[index]
    with pytest.raises(ValueError, match=r"among \['force', 'pixels', 'states', 'wrist'\]"):
        Windows(episodes, num_frames=2, frameskip=2, observations=("wrsit",))


def test_windows_on_a_device_are_the_same_windows(counter_world: World) -> None:
    """Batches are equal, in their order in memory too, and rows outside of windows take no room."""
    plain = counter_world([7, 3, 9])
    stored = plain.frames[torch.arange(19)].permute(0, 2, 3, 1).contiguous()

    class Reader:
        """Frames whose channels come last, as files store them."""

        shape, dtype = tuple(plain.frames.shape), torch.uint8

        def __len__(self) -> int:
            return len(stored)

        def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
            return stored[rows].movedim(-1, -3)

    episodes = replace(plain, frames=Reader())
    windows = Windows(
        episodes, num_frames=2, frameskip=2, observations=("pixels", "states"),
        subset=torch.tensor([0, 2]), scale=ActionScale(torch.ones(2), torch.ones(2)),
    )  # fmt: skip
    windows.thin(0.5)
    there, index = windows.on(torch.device("cpu")), torch.arange(len(windows)).flip(0)
    one, two = windows.batch(index), there.batch(index)
    assert torch.equal(one.actions, two.actions)
    assert plain.states is not None
    for name in ("pixels", "states"):
        assert torch.equal(one.frames[name], two.frames[name])  # type: ignore[index]
        assert one.frames[name].stride() == two.frames[name].stride()  # type: ignore[index]
    assert windows.num_bytes <= 14 * (stored[0].numel() + 4 * plain.states.shape[1])
    alone = Windows(episodes, num_frames=2, frameskip=2)
    means = alone.on(torch.device("cpu"), lambda seen: seen.float().mean((2, 3)))
    assert torch.equal(means.batch(index).frames, alone.batch(index).frames.float().mean((3, 4)))  # type: ignore[union-attr]


def test_episodes_of_vectors_need_no_pictures() -> None:
    """Where the only observation is a state vector, windows are [B, T, Q]."""
    states = torch.arange(20.0)[:, None].expand(20, 3).contiguous()
    episodes = Episodes(states, torch.zeros(20, 1), torch.tensor([10, 10]))
    seen, _ = Windows(episodes, num_frames=3, frameskip=2).batch(torch.tensor([0, 1]))
    assert isinstance(seen, torch.Tensor)
    assert torch.equal(seen[..., 0], torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]))
