"""`worldmodel manifest`: protocols, pairs of start and goal, and the file that holds a task.

The file is JSON with a SHA-256 of its content, which reveals a change by hand.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from planners.noise import fold_in
from worldmodel._files import write_atomically
from worldmodel.apps.data.collecting import fresh_walks
from worldmodel.apps.folder import check_new_file
from worldmodel.apps.parsing import Record, read_record
from worldmodel.apps.progress import say
from worldmodel.apps.report import render
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import Count, ManifestSettings, Natural, Protocol, Seed
from worldmodel.data import Episodes, episode_digests
from worldmodel.data.opening import open_episodes
from worldmodel.worlds import TwoRoom, World, open_world
from worldmodel.worlds.contract import kind_of
from worldmodel.worlds.rules import REST, Rule, rules_of

_LENGTH = 200  # actions of a walk for a manifest, enough for goals 100 steps away
_FAR, _MOST = 10_000, 10_000  # most steps to a goal, and most walks, for memory


def _array(value: object, kind: type[np.float32 | np.int64], rank: int) -> NDArray[Any]:
    with suppress(ValueError), np.errstate(over="ignore"):  # rows of different lengths
        array = np.asarray(value)
        if array.dtype.kind in ("fi" if kind is np.float32 else "i") and array.ndim == rank:
            array = array.astype(kind)
            if np.isfinite(array).all():
                return array
    raise ValueError(f"must be {'rows of finite numbers' if rank == 2 else 'whole numbers'}")


# The shortest decimals that parse to the same float32.
_SHORT = PlainSerializer(lambda rows: [[float(str(value)) for value in row] for row in rows])
_WHOLE = PlainSerializer(lambda array: array.tolist())
Floats = Annotated[NDArray[np.float32], PlainValidator(lambda x: _array(x, np.float32, 2)), _SHORT]
Ints = Annotated[NDArray[np.int64], PlainValidator(lambda x: _array(x, np.int64, 1)), _WHOLE]


class Terms(NamedTuple):
    """Which pairs a protocol takes, and what it counts as success."""

    drawn: frozenset[str] | None = None  #: protocols of manifests that it accepts; None: any
    offsets: tuple[int, int] | None = None  #: fewest and most steps to a goal
    stretch: int | None = None  #: budget, as a multiple of these steps
    any_rows: bool = False  #: whether training episodes and solved pairs are allowed
    pairs: int | None = None  #: number of first pairs to try; None: all
    rule: str = "own"  #: name in `rules_of`, if the world has it
    at_end: bool = False  #: whether only the state after the last step counts
    rest: bool = False  #: whether starts have zero velocity
    clear: dict[str, tuple[float, float | None]] | None = None
    """By world, the rates that CLEAR-LeWM v0.5 reports: released LeWM, and random or None."""


_FAIR = frozenset({"held-out", "strict"})
PROTOCOLS: dict[Protocol, Terms] = {
    "held-out": Terms(_FAIR),
    "strict": Terms(_FAIR, (50, 100), 2, at_end=True),
    "published": Terms(any_rows=True, pairs=50, rule="published"),
    "historical": Terms(any_rows=True, pairs=50, rule="published"),
    "clear-moderate": Terms(
        frozenset({"clear-moderate"}), (25, 25), 2, rest=True, rule="clear-moderate",
        clear={"two-room": (0.84, 0.067), "reacher": (0.46, 0.043), "push-t": (0.863, 0.04),
               "cube": (0.503, 0.157)},
    ),
    "clear-strict": Terms(
        frozenset({"clear-strict"}), (25, 25), 2, rest=True, rule="clear-strict",
        clear={"two-room": (0.583, None), "reacher": (0.43, None), "push-t": (0.703, None),
               "cube": (0.263, None)},
    ),
}  # fmt: skip


def rule_of(world: World, protocol: Protocol) -> Rule:
    """The rule of success in a world under a protocol.

    Raises: ValueError if the protocol does not cover this world.
    """
    terms, rules = PROTOCOLS[protocol], rules_of(world)
    if terms.clear is not None and world.name not in terms.clear:
        known = ", ".join(terms.clear)
        raise ValueError(f"protocol {protocol} is of {known}, got {world.name}")
    return rules.get(terms.rule, rules["own"])


class Manifest(Record):
    """A task and its source."""

    format: Literal[1]
    env: str  #: the world, as `open_world` knows it
    protocol: Protocol  #: rule by which the pairs were drawn
    seed: Seed  #: of the draw of pairs and seeds
    offset: Count  #: raw steps between start and goal in the source episode
    budget: Count  #: raw steps that a policy may take
    criterion: str  #: success in one line
    versions: dict[str, str]  #: of packages and rendering, on the machine that made it
    source: str  #: where the episodes came from, in words
    source_episodes: tuple[str, ...]  #: digests of the episodes that pairs come from
    dropped_as_solved: Natural  #: drawn pairs left out because they were solved at the start
    episodes: Ints  #: [N], index of a pair's episode in source_episodes
    rows: Ints  #: [N], index of the start among its states
    seeds: Ints  #: [N], one for each pair, below 2^53
    starts: Floats  #: [N, S]
    goals: Floats  #: [N, S]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64  #: `content_hash`

    @model_validator(mode="after")
    def _agree(self) -> "Manifest":
        lengths = {len(part) for part in (self.episodes, self.rows, self.seeds, self.starts)}
        if len(lengths) > 1 or self.starts.shape != self.goals.shape or not self.starts.size:
            raise ValueError("starts, goals, episodes, rows and seeds must have one entry per pair")
        lowest = min(part.min() for part in (self.episodes, self.rows, self.seeds))
        if lowest < 0 or self.episodes.max() >= len(self.source_episodes):
            raise ValueError("episodes must index source_episodes, and nothing may be negative")
        return self

    def take(self, which: NDArray[np.int64] | slice) -> "Manifest":
        """The manifest with some of its pairs; the hash stays."""
        names = ("episodes", "rows", "seeds", "starts", "goals")
        return self.model_copy(update={name: getattr(self, name)[which] for name in names})

    def seeds_of(self, repeat: int) -> NDArray[np.int64]:
        """Seeds [N] >= 0, a function of each pair's seed and of the number of the repeat."""
        mixed: NDArray[np.int64] = fold_in(torch.from_numpy(self.seeds), repeat).numpy()
        return mixed & (2**63 - 1)

    def content_hash(self) -> str:
        """SHA-256 of canonical JSON: sorted keys, no spaces, independent of the file's layout."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Pairs(NamedTuple):
    """Starts and goals; one episode visits both, `offset` steps apart."""

    starts: NDArray[np.float32]  #: [N, S], states of the world
    goals: NDArray[np.float32]  #: [N, S]
    episodes: NDArray[np.int64]  #: [N], index of the episode
    rows: NDArray[np.int64]  #: [N], index of the start among its states
    dropped: int  #: drawn pairs left out because they were solved at the start


def make_pairs(
    world: World, episodes: Sequence[NDArray[np.float32]], num: int, *, offset: int = 25,
    seed: int, protocol: Protocol = "held-out",
) -> Pairs:  # fmt: skip
    """Draw pairs without replacement, until `num` of them are not solved at the start.

    A goal is `offset` steps after its start in one of the `episodes` (states [L, S] of each). No
    episode gives a second pair before all have given one. The published protocol takes every pair
    as drawn.

    Raises: ValueError if no episode is long enough, or there are fewer than `num` such pairs.
    """
    terms, rule = PROTOCOLS[protocol], rule_of(world, protocol)
    lengths = np.asarray([len(states) for states in episodes])
    room = np.maximum(lengths - offset, 0)
    if offset < 1 or not room.any():
        raise ValueError(
            f"offset must be between 1 and the longest episode's {lengths.max()} states, "
            f"that one excluded, got {offset}"
        )
    ends = room.cumsum()
    drawn = np.random.default_rng(seed).permutation(int(ends[-1]))
    episode = np.searchsorted(ends, drawn, side="right")
    row = drawn - (ends - room)[episode]
    states = np.concatenate([np.asarray(part, np.float32) for part in episodes])
    first = (lengths.cumsum() - lengths)[episode] + row
    starts, goals = states[first], states[first + offset]
    if terms.rest:
        starts[:, REST.get(kind_of(world.name), slice(0))] = 0
    solved = np.zeros(len(drawn), bool) if terms.any_rows else rule.success(starts, goals)
    kept = np.flatnonzero(~solved if rule.pairs is None else ~solved & rule.pairs(starts, goals))
    if not terms.any_rows:
        # Order: the first pair of every episode, as drawn, then the second of each, and so on.
        among = np.argsort(episode[kept], kind="stable")
        alike, turn = episode[kept][among], np.arange(len(kept))
        turn[among] = turn - np.searchsorted(alike, alike)
        kept = kept[np.argsort(turn, kind="stable")]
    kept = kept[:num]
    if len(kept) < num:
        raise ValueError(f"num (--pairs) must be at most the {len(kept)} unsolved pairs, got {num}")
    dropped = int(solved[: kept.max() + 1].sum()) if num else 0
    return Pairs(starts[kept], goals[kept], episode[kept], row[kept], dropped)


def make_manifest(
    world: World, episodes: Sequence[NDArray[np.float32]], digests: Sequence[str], *,
    num: int, offset: int, budget: int, seed: int, source: str, protocol: Protocol = "held-out",
    env: str | None = None,
) -> Manifest:  # fmt: skip
    """Draw `num` pairs with `make_pairs`, and make a manifest of them.

    `digests` are those of the episodes, by `worldmodel.data.episode_digests`. `env` is the world's
    name for `open_world`; None: `world.name`. The other arguments are fields of Manifest.

    Raises: ValueError as `make_pairs`, or if states are not of this world.
    """
    widths = {part.shape[-1] for part in episodes}
    if widths != {world.state_dim}:
        raise ValueError(
            f"states must have the {world.state_dim} entries of {world.name}, got {sorted(widths)}"
        )
    pairs = make_pairs(world, episodes, num, offset=offset, seed=seed, protocol=protocol)
    # Keep the episodes that have a pair, and number them anew.
    used, counted = np.unique(pairs.episodes, return_inverse=True)
    manifest = Manifest(
        format=1,
        env=env or world.name, protocol=protocol, seed=seed, offset=offset, budget=budget,
        criterion=rule_of(world, protocol).criterion, versions=world.versions(), source=source,
        source_episodes=tuple(digests[int(e)] for e in used), dropped_as_solved=pairs.dropped,
        episodes=counted.reshape(-1), rows=pairs.rows, starts=pairs.starts, goals=pairs.goals,
        seeds=np.random.default_rng([seed, 1]).integers(2**53, size=num),
    )  # fmt: skip
    return manifest.model_copy(update={"sha256": manifest.content_hash()})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, one line per entry; the file appears whole or not at all."""
    content = manifest.model_dump(mode="json")
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items()]
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest; FileNotFoundError, or ValueError if it is damaged, newer or changed."""
    manifest = read_record(Path(path), Manifest, "manifest")
    if manifest.sha256 != (found := manifest.content_hash()):
        raise ValueError(
            f"{path} was changed after it was made: its content has hash {found[:12]}…, it claims "
            f"{manifest.sha256[:12]}…; make a new one with `worldmodel manifest`"
        )
    return manifest


def run(settings: ManifestSettings) -> int:
    """Draw pairs and write the manifest; the file may exist if it holds the same task."""
    out, kept = settings.out, None
    taken = FileExistsError(
        f"--out must not hold another file yet, got {out}: choose another name, because results "
        "name their manifest by its hash"
    )
    try:
        check_new_file(out, [path for path in (settings.data, settings.unseen_by) if path])
    except FileExistsError:
        try:
            kept = read_manifest(out).sha256
        except (ValueError, OSError):
            raise taken from None
    episodes, source = _source(settings)
    seen = open_run(settings.unseen_by).trained_on if settings.unseen_by else frozenset[str]()
    names = episode_digests(episodes)
    unseen = [e for e, name in enumerate(names) if name not in seen]
    if not unseen:
        raise ValueError(f"every episode of {settings.data} was trained on by --unseen-by")
    stated = episodes.stated.tolist()
    unseen, all_new = [e for e in unseen if stated[e]], len(unseen)
    if not unseen:
        raise ValueError(f"states must be finite, no episode of {settings.data} has finite ones")
    if left := all_new - len(unseen):
        say(f"{left} episodes are left out: their states hold NaN or infinity")
    if settings.data is not None:
        source = f"{len(unseen)} of {len(names)} episodes of {source}"
    assert episodes.states is not None
    states = episodes.states.split(episodes.lengths.tolist())
    manifest = make_manifest(
        open_world(settings.env), [states[e].numpy() for e in unseen],
        [names[e] for e in unseen], num=settings.pairs, offset=settings.offset,
        budget=settings.budget, seed=settings.seed, source=source, protocol=settings.protocol,
        env=settings.env,
    )  # fmt: skip
    if kept not in (None, manifest.sha256):
        raise taken
    write_manifest(manifest, out)
    say(render("manifest.txt", manifest=manifest, out=out))
    return 0


def _source(settings: ManifestSettings) -> tuple[Episodes, str]:
    """Episodes with states to draw pairs from, and a description of their source."""
    data = settings.data
    if data is not None:
        episodes = open_episodes(str(data), state=settings.state)
        if episodes.states is None:
            raise ValueError(f"{data} has no states to start from; name their columns with --state")
        return episodes, Path(data).name
    if settings.env != TwoRoom.name:
        raise ValueError(
            f"{settings.env} needs --data: `worldmodel data collect --env {settings.env}` makes "
            "episodes that no run was trained on"
        )
    if settings.offset > _FAR:
        raise ValueError(f"--offset must be at most {_FAR} on fresh walks, got {settings.offset}")
    # As many walks as pairs, so that few pairs share a walk.
    num, seed = min(max(settings.pairs, 50), _MOST), settings.seed + 2**31
    walks = fresh_walks(TwoRoom(), num, max(_LENGTH, 2 * settings.offset), seed)
    return walks, f"{num} fresh walks of the noisy expert, seed {seed}"
