"""A manifest: a task written down so that anybody's planner can be tried on exactly it.

A small JSON file with a SHA-256 over its content, which a hand that edits it does not renew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.pairs import Pairs, make_pairs
from worldmodel.worlds import World

__all__ = [
    "PROTOCOLS",
    "PUBLISHED_PAIRS",
    "Manifest",
    "ProtocolName",
    "make_manifest",
    "read_manifest",
    "write_manifest",
]

Floats = NDArray[np.float32]
ProtocolName = Literal["held-out", "historical"]
PROTOCOLS = ("held-out", "historical")
"""How pairs are drawn: unseen episodes without solved pairs, or any rows as in published tables."""
FORMAT = 1
PUBLISHED_PAIRS = 50  # of the historical protocol


class Manifest(NamedTuple):
    """What is to be done, and where it comes from.

    Attributes:
        env: name of the world.
        protocol: one of `PROTOCOLS`.
        seed: from which pairs and seeds were drawn.
        offset: raw steps between start and goal in the source episode.
        budget: raw steps allowed.
        criterion: success in one line.
        versions: packages and rendering where it was made.
        source: where the episodes came from, in words.
        pairs: N starts and goals; `episodes` counts into `digests`.
        seeds: [N], one per pair, below 2^53 so that every JSON reader keeps them.
        digests: of the source episodes that pairs were drawn from.
        hash: SHA-256 of the content as canonical JSON.
    """

    env: str
    protocol: ProtocolName
    seed: int
    offset: int
    budget: int
    criterion: str
    versions: dict[str, str]
    source: str
    pairs: Pairs
    seeds: NDArray[np.int64]
    digests: tuple[str, ...]
    hash: str


def make_manifest(
    world: World,
    episodes: Sequence[Floats],
    digests: Sequence[str],
    *,
    num: int,
    offset: int,
    budget: int,
    seed: int,
    source: str,
    protocol: ProtocolName = "held-out",
) -> Manifest:
    """Draw pairs from episodes and write down all that decides the task.

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
    Returns: Manifest.
    Raises: ValueError as `make_pairs`, or if `budget` is below 1 or states are not of this world.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1, got {budget}")
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
    pairs = pairs._replace(episodes=counted.reshape(-1))
    seeds = np.random.default_rng([seed, 1]).integers(2**53, size=num)
    manifest = Manifest(
        world.name, protocol, seed, offset, budget, world.criterion, world.versions(), source,
        pairs, seeds, tuple(digests[int(e)] for e in used), "",
    )  # fmt: skip
    return manifest._replace(hash=_hash(_content(manifest)))


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write it, one line per entry; the file appears whole or not at all."""
    content = _content(manifest) | {"sha256": manifest.hash}
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items()]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_manifest(path: str | Path) -> Manifest:
    """Read it and check that it is what was written.

    Args:
        path: of the file.
    Returns: Manifest.
    Raises: FileNotFoundError if there is none; ValueError if it is damaged, of a newer format, or
        was changed by hand.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no manifest at {path}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        kept = content.pop("sha256")
        newer = int(content["format"]) > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no manifest of `worldmodel manifest`: {lacks}") from error
    if newer:
        raise ValueError(f"{path} has format {content['format']}, this version reads {FORMAT}")
    if kept != _hash(content):
        raise ValueError(
            f"{path} was changed after it was made: its content has hash {_hash(content)[:12]}…, "
            f"it claims {str(kept)[:12]}…; make a new one with `worldmodel manifest`"
        )
    pairs = Pairs(
        np.asarray(content["starts"], np.float32),
        np.asarray(content["goals"], np.float32),
        np.asarray(content["episodes"], np.int64),
        np.asarray(content["rows"], np.int64),
        content["dropped_as_solved"],
    )
    return Manifest(
        env=content["env"],
        protocol=content["protocol"],
        seed=content["seed"],
        offset=content["offset"],
        budget=content["budget"],
        criterion=content["criterion"],
        versions=content["versions"],
        source=content["source"],
        pairs=pairs,
        seeds=np.asarray(content["seeds"], np.int64),
        digests=tuple(content["source_episodes"]),
        hash=kept,
    )


def _content(manifest: Manifest) -> dict[str, Any]:
    """What is hashed, in JSON's own types; float32 survives the way through them."""
    pairs = manifest.pairs
    return {
        "format": FORMAT,
        "env": manifest.env,
        "protocol": manifest.protocol,
        "seed": manifest.seed,
        "offset": manifest.offset,
        "budget": manifest.budget,
        "criterion": manifest.criterion,
        "versions": manifest.versions,
        "source": manifest.source,
        "source_episodes": list(manifest.digests),
        "dropped_as_solved": pairs.dropped,
        "episodes": pairs.episodes.tolist(),
        "rows": pairs.rows.tolist(),
        "seeds": manifest.seeds.tolist(),
        "starts": _short(pairs.starts),
        "goals": _short(pairs.goals),
    }


def _short(states: Floats) -> list[list[float]]:
    """Shortest decimals that are read back as the same float32."""
    return [[float(str(value)) for value in row] for row in states]


def _hash(content: dict[str, Any]) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces, whatever the file's own layout."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
