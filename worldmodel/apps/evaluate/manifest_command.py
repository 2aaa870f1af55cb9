"""`worldmodel manifest`: pairs written down, from fresh walks or a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps.evaluate.manifest import Manifest, make_manifest, read_manifest, write_manifest
from worldmodel.apps.folder import check_new_file
from worldmodel.apps.progress import say
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import ManifestSettings
from worldmodel.data import action_digest, episode_digests
from worldmodel.data.opening import open_episodes
from worldmodel.worlds import TwoRoom, collect, open_world

__all__ = ["run"]

Source = tuple[list[NDArray[np.float32]], list[str], str]
"""Episodes to draw from: states [L, S], digests, and in words where they come from."""
_LENGTH = 200  # actions of a walk collected for a manifest: goals 100 steps away leave room
_FAR, _MOST = 10_000, 10_000  # steps to a goal, and walks, that memory holds


def run(settings: ManifestSettings) -> int:
    """Draw pairs and write them down; the same task once more is no harm."""
    kept = _kept(settings)
    states, digests, source = _walks(settings) if settings.data is None else _episodes(settings)
    manifest = make_manifest(
        open_world(settings.env), states, digests, num=settings.pairs, offset=settings.offset,
        budget=settings.budget, seed=settings.seed, source=source, protocol=settings.protocol,
        env=settings.env,
    )  # fmt: skip
    if kept not in (None, manifest.sha256):
        raise _other(settings.out)
    write_manifest(manifest, settings.out)
    for line in _lines(manifest, settings.out):
        say(line)
    return 0


def _kept(settings: ManifestSettings) -> str | None:
    """Hash of the manifest that lies at --out already.

    Raises: FileExistsError if something else does; ValueError or OSError as `check_new_file`.
    """
    inputs = [path for path in (settings.data, settings.unseen_by) if path is not None]
    try:
        check_new_file(settings.out, inputs)
    except FileExistsError:
        try:
            return read_manifest(settings.out).sha256
        except (ValueError, OSError):
            raise _other(settings.out) from None
    return None


def _other(path: Path) -> FileExistsError:
    return FileExistsError(
        f"--out must not hold another file yet, got {path}: choose another name, for results know "
        "their manifest by its hash"
    )


def _walks(settings: ManifestSettings) -> Source:
    """As many fresh walks as pairs: hardly two pairs share one."""
    if settings.env != TwoRoom.name:
        raise ValueError(
            f"{settings.env} needs --data: `worldmodel data collect --env {settings.env}` makes "
            "episodes nobody has trained on"
        )
    if settings.offset > _FAR:
        raise ValueError(f"--offset must be at most {_FAR} on fresh walks, got {settings.offset}")
    num, seed = min(max(settings.pairs, 50), _MOST), settings.seed + 2**31
    walks = collect(TwoRoom(), num, max(_LENGTH, 2 * settings.offset), seed)
    digests = [action_digest(actions) for actions in walks.actions]
    return list(walks.states), digests, f"{num} fresh walks of the noisy expert, seed {seed}"


def _episodes(settings: ManifestSettings) -> Source:
    """The episodes of a data set that a run was not trained on."""
    data = str(settings.data)
    episodes = open_episodes(data, state=settings.state)
    if episodes.states is None:
        raise ValueError(f"{data} has no states to start from; name them with --state")
    seen = open_run(settings.unseen_by).trained_on if settings.unseen_by else frozenset[str]()
    names = episode_digests(episodes)
    kept = [e for e, name in enumerate(names) if name not in seen]
    if not kept:
        raise ValueError(f"every episode of {data} was trained on by --unseen-by")
    ends, begins = episodes.lengths.cumsum(0).tolist(), episodes.offsets.tolist()
    states = [episodes.states[begins[e] : ends[e]].numpy() for e in kept]
    source = f"{len(kept)} of {len(names)} episodes of {Path(data).name}"
    return states, [names[e] for e in kept], source


def _lines(manifest: Manifest, path: Path) -> list[str]:
    """What was written down."""
    note = f"  note       the budget is shorter than the {manifest.offset} steps of the episode"
    return [
        f"{path}: {len(manifest.seeds)} pairs of {manifest.env}, goals {manifest.offset} steps "
        f"away, budget {manifest.budget}",
        f"  from       {manifest.source}",
        f"  protocol   {manifest.protocol}, {manifest.dropped_as_solved} drawn pairs left out, "
        "solved before the first step",
        f"  success    {manifest.criterion}",
        *([note] if manifest.budget < manifest.offset else []),
        f"  sha256     {manifest.sha256}",
    ]
