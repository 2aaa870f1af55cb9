"""Where a result of the historical protocol departs from what published tables count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldmodel.apps.parsing import preset
from worldmodel.apps.settings import PlannerSettings

__all__ = ["departures"]

_PAIRS, _STEPS = 50, (25, 50)
_ALIKE = ("temperature", "rate", "together", "compile", "cuda_graph")  # decide no number here


def departures(result: Mapping[str, Any]) -> list[str]:
    """What differs from the published evaluation, in words; nothing of a held-out result."""
    if result["protocol"] != "historical":
        return []
    found, given = [], (result["offset"], result["budget"])
    if result["pairs"] < result["manifest_pairs"]:
        found.append(f"the first {result['pairs']} of {result['manifest_pairs']} pairs")
    elif result["pairs"] < _PAIRS:
        found.append(f"fewer than its {_PAIRS} pairs")
    if result["manifest_protocol"] != "historical":
        found.append("not drawn by it: pairs that were solved at the start are left out")
    if given != _STEPS:
        found.append("{} steps to the goal and {} allowed, not {} and {}".format(*given, *_STEPS))
    planner = result["fingerprint"]["planner"]
    if isinstance(planner, str):
        return [*found, "nothing was planned"]
    for name, value in (
        PlannerSettings(**preset("evaluate", "preset", "published")).described().items()
    ):
        if name == "held" and planner.get(name, value) != value:
            found.append("a block holds one action, where every action was free")
        elif name not in _ALIKE and planner.get(name, value) != value:
            found.append(f"{'planner' if name == 'name' else name} {planner[name]}, not {value}")
    return found
