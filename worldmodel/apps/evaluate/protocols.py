"""What a protocol asks of a manifest and of an evaluation: one row of a table each."""

from typing import NamedTuple

from worldmodel.apps.settings import Protocol
from worldmodel.worlds import World
from worldmodel.worlds.rules import Rule, rules_of


class Terms(NamedTuple):
    """Which pairs, which of them count, and what counts as success."""

    drawn: frozenset[str] | None = None  #: protocols of the manifests it takes; None: any
    offsets: tuple[int, int] | None = None  #: fewest and most steps to a goal
    stretch: int | None = None  #: steps allowed for each of them
    any_rows: bool = False  #: of training episodes too, solved ones too
    pairs: int | None = None  #: that are tried, the first ones; None: all
    rule: str = "own"  #: of `rules_of`, where the world has it
    at_end: bool = False  #: only where the budget ends
    rest: bool = False  #: starts have no velocity
    clear: dict[str, tuple[float, float | None]] | None = None
    """By world, what CLEAR-LeWM v0.5 reports: the released LeWM, and random actions if told."""


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
    """What counts as success in a world under a protocol.

    Raises: ValueError if the protocol is not made for this world.
    """
    terms, rules = PROTOCOLS[protocol], rules_of(world)
    if terms.clear is not None and world.name not in terms.clear:
        known = ", ".join(terms.clear)
        raise ValueError(f"protocol {protocol} is of {known}, got {world.name}")
    return rules.get(terms.rule, rules["own"])
