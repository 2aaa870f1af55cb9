"""Manifests, results and comparisons in lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.apps.evaluate.manifest import PUBLISHED_PAIRS, Manifest

__all__ = ["actor", "compare_lines", "historical", "manifest_lines", "percent", "result_lines"]


def percent(rate: float | None) -> str:
    """86.5 %, or none."""
    return "none" if rate is None else f"{100 * rate:.1f} %"


def manifest_lines(manifest: Manifest, path: Path) -> list[str]:
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


def historical(result: Mapping[str, Any]) -> str:
    """What a result of the historical protocol is good for, and how far it follows it."""
    parts = ["for comparison with published tables only"]
    if result["pairs"] < result["manifest_pairs"]:
        parts.append(f"the first {result['pairs']} of {result['manifest_pairs']} pairs")
    elif result["pairs"] < PUBLISHED_PAIRS:
        parts.append(f"fewer than its {PUBLISHED_PAIRS} pairs")
    if result["manifest_protocol"] != "historical":
        parts.append("not drawn by it: pairs that were solved at the start are left out")
    return "; ".join(parts)


def result_lines(result: dict[str, Any], out: Path) -> list[str]:
    """Rates with intervals, floors under them, and what they cost."""
    count = f"{result['pairs']} pairs"
    count += f" × {result['repeats']} seeds" if result["repeats"] > 1 else ""
    rows = [
        (actor(result), "success"),
        ("random actions", "random_success"),
        ("no action", "noop_success"),
        ("scripted expert", "expert_success"),
    ]
    lines = [
        "",
        f"  {result['env']}, {count}, goals {result['offset']} steps away, "
        f"budget {result['budget']}",
        f"  {'':<24}{'at any step':>12}   {'95 % interval':<18}{'at the end':>12}",
    ]
    if result["protocol"] == "historical":
        lines.insert(1, f"  HISTORICAL PROTOCOL: {historical(result)}")
    for title, key in rows:
        rate = result[f"{key}_rate"]
        if rate is None:
            lines.append(f"  {title:<24}{'there is none':>12}")
            continue
        low, high = (percent(bound) for bound in result[f"{key}_interval"])
        end = percent(result[f"{key}_rate_at_end"])
        lines.append(f"  {title:<24}{percent(rate):>12}   {f'{low} – {high}':<18}{end:>12}")
    mark = result["fingerprint"]
    if mark["world_versions"] != mark["manifest_versions"]:
        lines.append(
            f"  note: the manifest was made with {_named(mark['manifest_versions'])}, "
            f"this is {_named(mark['world_versions'])}"
        )
    seconds, distance = result["planning_seconds"], result["final_distance"]
    steps = result["mean_steps_to_goal"]
    taken = "never reached" if steps is None else f"{steps}, where it was reached"
    return [
        *lines,
        f"  steps to the goal       {taken}",
        f"  final distance          median {distance['median']:g}, 95th percentile "
        f"{distance['p95']:g}",
        f"  seconds per decision    median {seconds['median']:.3g}, 95th percentile "
        f"{seconds['p95']:.3g}, for {seconds['pairs_per_decision']} pairs at once",
        f"  look at {out / 'index.html'}; all figures are in {out / 'result.json'}",
    ]


def compare_lines(found: dict[str, Any], a: str, b: str) -> list[str]:
    """Both rates, their difference and whether chance explains it."""
    lines = [f"A  {a}", f"B  {b}"]
    if found["protocol"] == "historical":
        lines.append("HISTORICAL PROTOCOL: for comparison with published tables only")
    for kind, title in (("success", "at any step"), ("success_at_end", "at the end")):
        part = found[kind]
        lines += [
            f"success {title}, {part['pairs']} pairs",
            f"  A {percent(part['a'])}   B {percent(part['b'])}   "
            f"B − A {100 * part['difference']:+.1f} points",
            f"  better in A {part['only_a_better']}, better in B {part['only_b_better']}, "
            f"exact test p = {part['p_value']:.3g}",
        ]
    return lines


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def actor(result: Mapping[str, Any]) -> str:
    """Who acted: the planner's name, or the policy's."""
    planner = result["fingerprint"]["planner"]
    return planner["name"] if isinstance(planner, dict) else str(planner).removesuffix("Policy")
