"""What a study looks at: episodes the run was not trained on, encoded once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.apps.report.pages import plural
from worldmodel.apps.runs import Run
from worldmodel.data import action_digest, episode_digests
from worldmodel.data.frames import gather
from worldmodel.data.opening import open_episodes
from worldmodel.study import embed
from worldmodel.worlds import TwoRoom, Walks, collect

__all__ = ["Sequences", "StudyMaterial", "gather_material", "walked"]

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
    source = data or (None if run.world == TwoRoom.name else run.data)
    if source is not None:
        return _from_data(run, source, episodes, seed)
    if run.world != TwoRoom.name:
        raise ValueError(
            f"{run.folder} is of the world {run.world!r}, which study cannot collect from: "
            "give episodes with --data"
        )
    world = TwoRoom(int(run.world_model.encoder.image_size))
    length = max(int(run.settings.get("length", 80)), 4 * run.frameskip)
    walks = collect(world, 2 * episodes, length, _COLLECT_SEED + seed)
    fresh = np.asarray([action_digest(a) not in run.trained_on for a in walks.actions])
    fit, test = (Walks(*(part[fresh][i::2] for part in walks)) for i in (0, 1))
    told = f"{fresh.sum()} fresh episodes of Two-Room, collected for this study"
    seen = walked(run, world, fit) if len(fit.states) else None
    return StudyMaterial(seen, walked(run, world, test), world, ["x", "y"], told, [])


def walked(run: Run, world: TwoRoom, walks: Walks) -> Sequences:
    """Walks as the run's model sees them: every `frameskip`-th state, 24 at most."""
    k = run.frameskip
    states = torch.from_numpy(walks.states)[:, ::k][:, :_MOST_FRAMES]
    T = states.shape[1]
    frames = torch.from_numpy(world.render(states.reshape(-1, 2).numpy()))
    raw = torch.from_numpy(walks.actions)[:, : (T - 1) * k]
    return _sequences(run, frames.unflatten(0, (-1, T)), raw, states)


def _from_data(run: Run, source: str, episodes: int, seed: int) -> StudyMaterial:
    data, k = open_episodes(source), run.frameskip
    digests = episode_digests(data)
    unseen = torch.tensor([e for e, d in enumerate(digests) if d not in run.trained_on]).long()
    if len(unseen) == 0:
        raise ValueError(
            f"all {len(data)} episodes of {source} were trained on: give others with --data"
        )
    frames = (data.lengths[unseen] - 1) // k + 1
    T = min(int(frames.median()), _MOST_FRAMES)
    if T < 2:
        raise ValueError(
            f"episodes must be longer than frameskip = {k} rows, got a median of "
            f"{int(data.lengths[unseen].median())} in {source}"
        )
    long = unseen[frames >= T]
    order = torch.randperm(len(long), generator=torch.Generator().manual_seed(seed))
    chosen, notes = long[order][: 2 * episodes], []
    if len(unseen) < len(data):
        notes.append(f"{len(data) - len(unseen)} episodes of the file were trained on: left out.")
    if len(long) < len(unseen):
        notes.append(f"{len(unseen) - len(long)} are shorter than {T} frames: left out.")
    if len(chosen) < 20:
        few = f"Only {plural(len(chosen), 'unseen episode')}"
        notes.append(f"{few}: intervals are wide and rough below about ten a side.")

    def cut(subset: Tensor) -> Sequences:
        start = data.offsets[subset][:, None]
        rows = start + k * torch.arange(T)
        states = None if data.states is None else data.states[rows]
        raw = data.actions[start + torch.arange((T - 1) * k)]
        return _sequences(run, gather(data.frames, rows), raw, states)

    fit, test = (chosen[::2], chosen[1::2]) if len(chosen) > 1 else (None, chosen)
    names = [f"state {i}" for i in range(0 if data.states is None else data.states.shape[1])]
    told = f"{len(chosen)} unseen episodes of {source}"
    return StudyMaterial(None if fit is None else cut(fit), cut(test), None, names, told, notes)


def _sequences(run: Run, frames: Tensor, raw: Tensor, states: Tensor | None) -> Sequences:
    z = embed(run.world_model, frames)
    blocks = raw.unflatten(1, (-1, run.frameskip)).flatten(2)
    return Sequences(frames, raw, run.scale.normalise(blocks).to(z.device), states, z)
