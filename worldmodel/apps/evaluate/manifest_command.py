"""`worldmodel manifest` on the command line: pairs written down, from fresh walks or a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.apps._arguments import natural, positive
from worldmodel.apps.evaluate.manifest import (
    PROTOCOLS,
    Manifest,
    make_manifest,
    read_manifest,
    write_manifest,
)
from worldmodel.apps.progress import say
from worldmodel.apps.runs import open_run
from worldmodel.data import action_digest, episode_digests
from worldmodel.data.opening import open_episodes
from worldmodel.worlds import WORLDS, TwoRoom, collect, open_world

__all__ = ["add_parser"]

Floats = NDArray[np.float32]
_LENGTH = 200  # actions of a walk collected for a manifest: goals 100 steps away leave room
_MANIFEST = """\
Write down a task: starts, goals, budget, criterion, seeds and versions, with a hash over them.
Pairs come from episodes nobody trains on: fresh walks (two-room), or those of --data.
"""


def add_parser(commands: Any) -> None:
    """Register `manifest`; it sets `run`, a function of the parsed arguments."""
    parser = commands.add_parser(
        "manifest", help="write down start and goal pairs to evaluate on", description=_MANIFEST,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--env", choices=WORLDS, required=True, help="the world")
    parser.add_argument(
        "--pairs", type=positive, default=200, metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--offset", type=positive, default=25, metavar="N",
        help="steps from start to goal in the source episode (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=positive, default=50, metavar="N",
        help="steps allowed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of the draw (default: %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="FILE", help="episodes with states to draw from, in any format we read"
    )
    parser.add_argument(
        "--state", metavar="NAME", nargs="+", help="columns of --data that hold the state"
    )
    parser.add_argument(
        "--unseen-by", type=Path, metavar="RUN",
        help="leave out the episodes of --data that this run was trained on",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=PROTOCOLS[0],
        help="historical keeps pairs that are solved already (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="M.json", help="file to write")
    parser.set_defaults(run=_manifest)


def _manifest(arguments: argparse.Namespace) -> int:
    world = open_world(arguments.env)
    states, digests, source = _episodes(arguments)
    manifest = make_manifest(
        world,
        states,
        digests,
        num=arguments.pairs,
        offset=arguments.offset,
        budget=arguments.budget,
        seed=arguments.seed,
        source=source,
        protocol=arguments.protocol,
    )
    _keep_other(arguments.out, manifest)
    write_manifest(manifest, arguments.out)
    for line in _lines(manifest, arguments.out):
        say(line)
    return 0


def _keep_other(path: Path, manifest: Manifest) -> None:
    """Refuse to write over anything but the same task.

    Raises: FileExistsError.
    """
    if not path.exists():
        return
    try:
        same = read_manifest(path).hash == manifest.hash
    except ValueError:
        same = False
    if not same:
        raise FileExistsError(
            f"--out must not hold another file yet, got {path}: choose another name, for results "
            "know their manifest by its hash"
        )


def _episodes(arguments: argparse.Namespace) -> tuple[list[Floats], list[str], str]:
    """States and names of the episodes to draw from, and where they come from."""
    if arguments.data is None:
        if arguments.unseen_by or arguments.state:
            raise ValueError("--unseen-by and --state go with --data")
        if arguments.env != TwoRoom.name:
            raise ValueError(
                f"{arguments.env} needs --data: `worldmodel data collect --env {arguments.env}` "
                "makes episodes nobody has trained on"
            )
        # As many walks as pairs: hardly two pairs share one.
        num, seed = max(arguments.pairs, 50), arguments.seed
        walks = collect(TwoRoom(), num, max(_LENGTH, 2 * arguments.offset), seed + 2**31)
        source = f"{num} fresh walks of the noisy expert, seed {seed + 2**31}"
        return list(walks.states), [action_digest(a) for a in walks.actions], source
    episodes = open_episodes(arguments.data, state=arguments.state)
    if episodes.states is None:
        raise ValueError(f"{arguments.data} has no states to start from; name them with --state")
    names = episode_digests(episodes)
    seen = open_run(arguments.unseen_by).trained_on if arguments.unseen_by else frozenset[str]()
    kept = [e for e, name in enumerate(names) if name not in seen]
    if not kept:
        raise ValueError(f"every episode of {arguments.data} was trained on by --unseen-by")
    ends = episodes.lengths.cumsum(0).tolist()
    begins = episodes.offsets.tolist()
    states = [episodes.states[begins[e] : ends[e]].numpy() for e in kept]
    source = f"{len(kept)} of {len(names)} episodes of {Path(arguments.data).name}"
    return states, [names[e] for e in kept], source


def _lines(manifest: Manifest, path: Path) -> list[str]:
    """What was written down."""
    short = (
        [f"  note       the budget is shorter than the {manifest.offset} steps of the episode"]
        if manifest.budget < manifest.offset
        else []
    )
    return [
        f"{path}: {len(manifest.seeds)} pairs of {manifest.env}, goals {manifest.offset} steps "
        f"away, budget {manifest.budget}",
        f"  from       {manifest.source}",
        f"  protocol   {manifest.protocol}, {manifest.pairs.dropped} drawn pairs left out, "
        "solved before the first step",
        f"  success    {manifest.criterion}",
        *short,
        f"  sha256     {manifest.hash}",
    ]
