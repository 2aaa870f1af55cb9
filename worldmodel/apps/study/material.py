"""What a study looks at: episodes the run was not trained on, encoded once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.apps.data.collecting import fresh_walks
from worldmodel.apps.report.pages import plural
from worldmodel.apps.runs import Run
from worldmodel.data import Episodes, episode_digests
from worldmodel.data.frames import gather
from worldmodel.data.opening import open_episodes
from worldmodel.study import embed
from worldmodel.worlds import TwoRoom

__all__ = ["Sequences", "StudyMaterial", "gather_material", "sequences"]

_MOST_FRAMES = 24  # of an episode
_COLLECT_SEED = 7_368_787  # far from the seeds of demo and train, and checked by digest anyway


class Sequences(NamedTuple):
    """E episodes of T frames, cut at the pace of the model: k raw actions from frame to frame."""

    frames: Tensor  #: [E, T, 3, H, W], uint8
    raw: Tensor  #: [E, (T − 1) k, A]
    actions: Tensor  #: [E, T − 1, k A], blocks as the model expects them
    states: Tensor | None  #: [E, T, S]
    z: Tensor  #: [E, T, D]


class StudyMaterial(NamedTuple):
    """Episodes to fit probes and decoder on, and others that every figure is about."""

    fit: Sequences | None  #: None where there was only one episode
    test: Sequences
    world: TwoRoom | None  #: the built-in one, if the episodes were collected in it
    names: list[str]  #: of the state's dims
    source: str  #: where the episodes are from, in words
    notes: list[str]  #: what a reader should know about them


def gather_material(run: Run, data: str | None, episodes: int, seed: int) -> StudyMaterial:
    """Fresh episodes of the built-in world, or the unseen ones of a data set.

    Raises: ValueError if there is no source, or nothing in it that the run was not trained on.
    """
    source, world = data or (None if run.world == TwoRoom.name else run.data), None
    if source is not None:
        found = open_episodes(source)
    elif run.world == TwoRoom.name:
        world = TwoRoom(int(run.world_model.encoder.image_size))
        length = max(int(run.settings.get("length", 80)), 4 * run.frameskip)
        found = fresh_walks(world, 2 * episodes, length, _COLLECT_SEED + seed)
    else:
        raise ValueError(
            f"{run.folder} is of the world {run.world!r}, which study cannot collect from: "
            "give episodes with --data"
        )
    digests = episode_digests(found)
    unseen = torch.tensor([e for e, d in enumerate(digests) if d not in run.trained_on]).long()
    if len(unseen) == 0:
        raise ValueError(
            f"all {len(found)} episodes of {source or run.world} were trained on: give others with "
            "--data"
        )
    frames = (found.lengths[unseen] - 1) // run.frameskip + 1
    T = min(int(frames.median()), _MOST_FRAMES)
    if T < 2:
        raise ValueError(
            f"episodes must be longer than frameskip = {run.frameskip} rows, got a median of "
            f"{int(found.lengths[unseen].median())} in {source}"
        )
    long = unseen[frames >= T]
    order = torch.randperm(len(long), generator=torch.Generator().manual_seed(seed))
    chosen, notes = long if world else long[order][: 2 * episodes], []
    if len(unseen) < len(found):
        notes.append(f"{len(found) - len(unseen)} episodes of the file were trained on: left out.")
    if len(long) < len(unseen):
        notes.append(f"{len(unseen) - len(long)} are shorter than {T} frames: left out.")
    if len(chosen) < 20:
        few = f"Only {plural(len(chosen), 'unseen episode')}"
        notes.append(f"{few}: intervals are wide and rough below about ten a side.")
    count = 0 if found.states is None else found.states.shape[1]
    names = ["x", "y"] if world else [f"state {i}" for i in range(count)]
    fresh = f"{len(chosen)} fresh episodes of Two-Room, collected for this study"
    told = fresh if world else f"{len(chosen)} unseen episodes of {source}"
    fit, test = (chosen[::2], chosen[1::2]) if len(chosen) > 1 else (None, chosen)
    parts = (None if fit is None else sequences(run, found, fit, T), sequences(run, found, test, T))
    return StudyMaterial(*parts, world, names, told, notes)


def sequences(run: Run, data: Episodes, which: Tensor, T: int = _MOST_FRAMES) -> Sequences:
    """Some episodes as the run's model sees them: every `frameskip`-th row, T at most."""
    k, start = run.frameskip, data.offsets[which][:, None]
    T = min(T, (int(data.lengths[which].min()) - 1) // k + 1)
    rows = start + k * torch.arange(T)
    frames, raw = gather(data.frames, rows), data.actions[start + torch.arange((T - 1) * k)]
    z = embed(run.world_model, frames)
    blocks = raw.unflatten(1, (-1, k)).flatten(2)
    states = None if data.states is None else data.states[rows]
    return Sequences(frames, raw, run.scale.normalise(blocks).to(z.device), states, z)
