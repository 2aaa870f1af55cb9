"""The rules of each protocol for manifests and evaluations, one row of a table each."""

from typing import NamedTuple

from worldmodel.apps.settings import Protocol
from worldmodel.worlds import World
from worldmodel.worlds.rules import Rule, rules_of


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
