"""`worldmodel data`: collect episodes, look into a data set, convert one to HDF5, draw it anew."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worldmodel.apps._arguments import fraction, natural, positive
from worldmodel.apps.data import collecting
from worldmodel.apps.data.contact_sheet import contact_sheet
from worldmodel.apps.data.describing import describe
from worldmodel.apps.progress import Progress, say
from worldmodel.data import Episodes, HDF5Writer
from worldmodel.data.frames import gather
from worldmodel.data.hdf5_writer import read_origin
from worldmodel.data.opening import format_of, open_episodes
from worldmodel.worlds import WORLDS, TwoRoom, open_world
from worldmodel.worlds.behaviours import policies

__all__ = ["add_parser"]

_ABOUT = """\
Episodes on disk: flat rows of pixels and actions, in the layout that LeWM publishes (HDF5).
Minari and LeRobot data sets can be read and converted.
"""
_EXAMPLES = """\
examples:
  worldmodel data collect --env two-room --episodes 500 --out walks.h5
  worldmodel data collect --env push-t --policy pusher --episodes 200 --out pushes.h5
  worldmodel data render pushes.h5 pushes224.h5 --size 224
  worldmodel data inspect walks.h5
  worldmodel data convert my_lerobot_folder robot.h5 --size 224
"""
_SOURCE = "HDF5 file, LeRobot folder, Minari folder or id"


def add_parser(commands: Any) -> None:
    """Register `data` and its verbs; each sets `run`, a function of the parsed arguments."""
    data = commands.add_parser(
        "data",
        help="collect episodes, inspect a data set, convert one, draw it anew",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = data.add_subparsers(dest="verb", required=True, metavar="verb")
    _add_collect(verbs)
    _add_inspect(verbs)
    _add_convert(verbs)
    _add_render(verbs)


def _add_collect(verbs: Any) -> None:
    about = "let a scripted or random policy act, and write what it sees and does"
    parser = verbs.add_parser("collect", help=about, description=about, allow_abbrev=False)
    parser.add_argument(
        "--env", choices=WORLDS, default=WORLDS[0], help="the world (default: %(default)s)"
    )
    parser.add_argument(
        "--policy", metavar="NAME",
        help="who acts: " + "; ".join(f"{w}: {', '.join(policies(w))}" for w in WORLDS)
        + " (default: the first named)",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", type=positive, required=True, metavar="N",
        help="episodes the file shall hold",
    )  # fmt: skip
    parser.add_argument(
        "--length", type=positive, default=100, metavar="N",
        help="actions in an episode, one fewer than its frames (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=positive, default=64, metavar="PX",
        help="side of a frame (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N",
        help="decides starts, targets and noise (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--bump", type=fraction, default=0.0, metavar="P",
        help="how often the walker heads straight at a target, wall or no wall; the demo has 0.4, "
        "for a model that never saw the wall stop anybody plans through it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to create")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on with --out if it is there: after an interruption, or to more episodes",
    )  # fmt: skip
    _add_workers(parser)
    _add_compression(parser)
    parser.set_defaults(run=_plainly(_collect))


def _add_inspect(verbs: Any) -> None:
    about = "say what is in a data set, and draw a contact sheet of it"
    parser = verbs.add_parser("inspect", help=about, description=about, allow_abbrev=False)
    parser.add_argument(
        "path", metavar="DATA", help="HDF5 file, LeRobot folder, Minari folder or id"
    )
    _add_columns(parser)
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png",
        help="where to draw the contact sheet (default: DATA.sheet.png in this folder)",
    )  # fmt: skip
    parser.set_defaults(run=_plainly(_inspect))


def _add_convert(verbs: Any) -> None:
    about = "write pixels, actions and states of any data set we read as HDF5"
    parser = verbs.add_parser("convert", help=about, description=about, allow_abbrev=False)
    parser.add_argument("path", metavar="IN", help=_SOURCE)
    parser.add_argument("out", type=Path, metavar="OUT", help="HDF5 file to create")
    _add_columns(parser)
    parser.add_argument(
        "--size", type=positive, metavar="PX", help="resize frames to this side (default: as is)"
    )
    _add_compression(parser)
    parser.set_defaults(run=_plainly(_convert))


def _add_render(verbs: Any) -> None:
    about = "draw the states of a collected file at another size"
    parser = verbs.add_parser("render", help=about, description=about, allow_abbrev=False)
    parser.add_argument("path", type=Path, metavar="IN", help="HDF5 file that collect wrote")
    parser.add_argument("out", type=Path, metavar="OUT", help="HDF5 file to create")
    parser.add_argument(
        "--size", type=positive, required=True, metavar="PX", help="side of a frame"
    )
    _add_workers(parser)
    _add_compression(parser)
    parser.set_defaults(run=_plainly(_render))


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=natural, metavar="N",
        help="processes that simulate and draw, not for two-room (default: the world's choice)",
    )  # fmt: skip


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pixels", metavar="NAME", help="column of the frames")
    parser.add_argument("--action", metavar="NAME", help="column of the actions")
    parser.add_argument("--state", metavar="NAME", nargs="+", help="columns of the states")


def _add_compression(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compression", choices=["gzip", "lzf"],
        help="smaller files that read far more slowly (default: none)",
    )  # fmt: skip


def _plainly(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A missing extra is told like any other mistake of the command line."""

    def runner(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except ImportError as error:
            raise ValueError(str(error)) from error

    return runner


def _collect(arguments: argparse.Namespace) -> int:
    world = open_world(arguments.env, image_size=arguments.size, workers=arguments.workers)
    policy = arguments.policy or policies(world.name)[0]
    if policy not in policies(world.name):
        known = ", ".join(policies(world.name))
        raise ValueError(f"--policy must be one of {known} for {world.name}, got {policy!r}")
    wanted = {"length": arguments.length, "seed": arguments.seed}
    origin = collecting.origin_of(world, policy, **wanted)
    if isinstance(world, TwoRoom) and policy == "expert":
        origin["episodes"] = arguments.episodes  # every walk depends on how many there are
        origin["bump"] = str(arguments.bump)
    elif arguments.bump:
        raise ValueError(f"--bump is for two-room's expert, got it with {world.name}, {policy}")
    with collecting.open_writer(
        arguments.out, origin, resume=arguments.resume, compression=arguments.compression
    ) as writer:
        first = len(writer)
        if first > arguments.episodes:
            raise ValueError(
                f"--episodes must be at least the {first} in {arguments.out}, "
                f"got {arguments.episodes}"
            )
        with (
            _tells_when_interrupted(writer),
            Progress("collect", arguments.episodes, start=first, unit="episode") as progress,
        ):
            for states, actions in collecting.episodes(
                world, policy, arguments.episodes, first=first, bump=arguments.bump, **wanted
            ):
                writer.write(world.draw(states), actions, states)
                progress.update()
    say(f"{arguments.out}: {len(writer)} episodes of {arguments.length + 1} frames")
    for line in collecting.describe_coverage(world, arguments.out):
        say(line)
    return 0


def _render(arguments: argparse.Namespace) -> int:
    origin = read_origin(arguments.path)
    if origin.get("world") not in WORLDS:
        raise ValueError(
            f"{arguments.path} must say which world it comes from, as files of collect do"
        )
    episodes = open_episodes(arguments.path)
    if episodes.states is None:
        raise ValueError(f"{arguments.path} must hold the column 'state' to draw from")
    world = open_world(str(origin["world"]), image_size=arguments.size, workers=arguments.workers)
    collecting.tell_other_versions(world, origin)
    origin["image_size"] = arguments.size
    with (
        HDF5Writer(arguments.out, compression=arguments.compression, origin=origin) as writer,
        _tells_when_interrupted(writer),
        Progress("render", len(episodes), unit="episode") as progress,
    ):
        for e in range(len(episodes)):
            rows = episodes.rows(torch.tensor([e]))
            states = episodes.states[rows].numpy()
            writer.write(world.draw(states), episodes.actions[rows].numpy(), states)
            progress.update()
    say(f"{arguments.out}: {len(writer)} episodes at {arguments.size} × {arguments.size} pixels")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    episodes = _open(arguments)
    # What is said about the frames holds no longer once they are resized.
    is_copy = format_of(arguments.path) == "hdf5" and arguments.size is None
    origin = read_origin(arguments.path) if is_copy else {}
    with (
        HDF5Writer(arguments.out, compression=arguments.compression, origin=origin) as writer,
        _tells_when_interrupted(writer),
        Progress("convert", len(episodes), unit="episode") as progress,
    ):
        for e in range(len(episodes)):
            rows = episodes.rows(torch.tensor([e]))
            frames = gather(episodes.frames, rows)
            if arguments.size:
                frames = _resize(frames, arguments.size)
            states = None if episodes.states is None else episodes.states[rows].numpy()
            writer.write(frames.numpy(), episodes.actions[rows].numpy(), states)
            progress.update()
    kept = "pixels and action" if episodes.states is None else "pixels, action and state"
    say(f"{arguments.out}: {kept} of {len(writer)} episodes; other columns stay behind")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    episodes = _open(arguments)
    for line in describe(arguments.path, episodes):
        say(line)
    name = f"{Path(arguments.path).resolve().name}.sheet.png"
    sheet = Path(name) if arguments.sheet is None else arguments.sheet
    contact_sheet(episodes, sheet)
    say(f"  contact sheet  {sheet}")
    return 0


def _open(arguments: argparse.Namespace) -> Episodes:
    return open_episodes(
        arguments.path, pixels=arguments.pixels, action=arguments.action, state=arguments.state
    )


def _resize(frames: Tensor, size: int) -> Tensor:
    """Frames [L, C, H, W] at another size, each pixel an average over its area."""
    small = [
        np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BOX))
        for channel in frames.flatten(0, 1).contiguous().numpy()
    ]
    resized: Tensor = torch.from_numpy(np.stack(small)).unflatten(0, frames.shape[:2])
    return resized


@contextmanager
def _tells_when_interrupted(writer: HDF5Writer) -> Iterator[None]:
    """On Ctrl-C, say what the file holds before passing it on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ninterrupted; {writer.path} holds {len(writer)} whole episodes")
        raise
