"""A manifest: a task written down so that anybody's planner can be tried on exactly it.

A small JSON file with a SHA-256 over its content, which a hand that edits it does not renew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.pairs import Pairs, make_pairs
from worldmodel.apps.parsing import Record, read_record
from worldmodel.apps.settings import Count, Protocol, Seed
from worldmodel.worlds import World

__all__ = ["PUBLISHED_PAIRS", "Manifest", "make_manifest", "read_manifest", "write_manifest"]

PUBLISHED_PAIRS = 50  # of the historical protocol


def _array(value: object, kind: type[np.float32 | np.int64], rank: int) -> NDArray[Any]:
    """Numbers of a file, or of an array of that kind."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(())
    if array.dtype.kind in ("fi" if kind is np.float32 else "i") and array.ndim == rank:
        with np.errstate(over="ignore"):
            array = array.astype(kind)
        if np.isfinite(array).all():
            return array
    raise ValueError(f"must be {'rows of finite numbers' if rank == 2 else 'whole numbers'}")


def _short(states: NDArray[np.float32]) -> list[list[float]]:
    """Shortest decimals that are read back as the same float32."""
    return [[float(str(value)) for value in row] for row in states]


Floats = Annotated[NDArray[np.float32], PlainValidator(lambda value: _array(value, np.float32, 2)),
                   PlainSerializer(_short)]  # fmt: skip
Ints = Annotated[NDArray[np.int64], PlainValidator(lambda value: _array(value, np.int64, 1)),
                 PlainSerializer(lambda array: array.tolist())]  # fmt: skip


class Manifest(Record):
    """What is to be done, and where it comes from.

    Attributes:
        env: the world, as `open_world` knows it.
        protocol: "held-out" of unseen episodes without solved pairs, or "historical" of any rows.
        seed: from which pairs and seeds were drawn.
        offset: raw steps between start and goal in the source episode.
        budget: raw steps allowed.
        criterion: success in one line.
        versions: packages and rendering where it was made.
        source: where the episodes came from, in words.
        source_episodes: digests of those that pairs were drawn from.
        dropped_as_solved: drawn pairs that were left out, solved before the first step.
        episodes, rows, seeds, starts, goals: Pairs, and a seed each below 2^53, [N] or [N, S].
        sha256: of the content as canonical JSON.
    """

    format: Literal[1]
    env: str
    protocol: Protocol
    seed: Seed
    offset: Count
    budget: Count
    criterion: str
    versions: dict[str, str]
    source: str
    source_episodes: tuple[str, ...]
    dropped_as_solved: Annotated[int, Field(ge=0)]
    episodes: Ints
    rows: Ints
    seeds: Ints
    starts: Floats
    goals: Floats
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64

    @model_validator(mode="after")
    def _agree(self) -> Manifest:
        lengths = {len(part) for part in (self.episodes, self.rows, self.seeds, self.starts)}
        if len(lengths) > 1 or self.starts.shape != self.goals.shape or not self.starts.size:
            raise ValueError("starts, goals, episodes, rows and seeds must be of the same pairs")
        lowest = min(part.min() for part in (self.episodes, self.rows, self.seeds))
        if lowest < 0 or self.episodes.max() >= len(self.source_episodes):
            raise ValueError("episodes must count into source_episodes, and nothing be negative")
        return self

    @property
    def pairs(self) -> Pairs:
        """Starts and goals."""
        return Pairs(self.starts, self.goals, self.episodes, self.rows, self.dropped_as_solved)

    def take(self, which: NDArray[np.int64] | slice) -> Manifest:
        """Some of its pairs, under its own hash."""
        names = ("episodes", "rows", "seeds", "starts", "goals")
        return self.model_copy(update={name: getattr(self, name)[which] for name in names})

    def content_hash(self) -> str:
        """SHA-256 of canonical JSON: sorted keys, no spaces, whatever the file's own layout."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def make_manifest(
    world: World,
    episodes: Sequence[NDArray[np.float32]],
    digests: Sequence[str],
    *,
    num: int,
    offset: int,
    budget: int,
    seed: int,
    source: str,
    protocol: Protocol = "held-out",
    env: str | None = None,
) -> Manifest:
    """Draw `num` pairs from episodes and write down all that decides the task.

    Args:
        world: of the episodes.
        episodes: states [L, S] of each.
        digests: their names, by `worldmodel.data.episode_digests`.
        num: N pairs.
        offset: steps from start to goal.
        budget: steps allowed.
        seed: of the draw.
        source: where the episodes came from, in words.
        protocol: "historical" keeps pairs that are solved already.
        env: what `open_world` knows the world by; None is its name.
    Raises: ValueError as `make_pairs`, or if states are not of this world.
    """
    widths = {part.shape[-1] for part in episodes}
    if widths != {world.state_dim}:
        raise ValueError(
            f"states must have the {world.state_dim} entries of {world.name}, got {sorted(widths)}"
        )
    pairs = make_pairs(
        world, episodes, num, offset=offset, seed=seed, keep_solved=protocol == "historical"
    )
    # Only the episodes that a pair came from are named, and counted anew.
    used, counted = np.unique(pairs.episodes, return_inverse=True)
    manifest = Manifest(
        format=1,
        env=env or world.name, protocol=protocol, seed=seed, offset=offset, budget=budget,
        criterion=world.criterion, versions=world.versions(), source=source,
        source_episodes=tuple(digests[int(e)] for e in used), dropped_as_solved=pairs.dropped,
        episodes=counted.reshape(-1), rows=pairs.rows, starts=pairs.starts, goals=pairs.goals,
        seeds=np.random.default_rng([seed, 1]).integers(2**53, size=num),
    )  # fmt: skip
    return manifest.model_copy(update={"sha256": manifest.content_hash()})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write it, one line per entry; the file appears whole or not at all."""
    content = manifest.model_dump(mode="json")
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items()]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_manifest(path: str | Path) -> Manifest:
    """Read it and check that it is what was written.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged, of a newer format, or
        was changed by hand.
    """
    manifest = read_record(Path(path), Manifest, "manifest")
    if manifest.sha256 != (found := manifest.content_hash()):
        raise ValueError(
            f"{path} was changed after it was made: its content has hash {found[:12]}…, it claims "
            f"{manifest.sha256[:12]}…; make a new one with `worldmodel manifest`"
        )
    return manifest
