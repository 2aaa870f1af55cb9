"""What commands say at their end, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.apps.parsing import preset
from worldmodel.apps.report.words import interval, number, p_value, percent, points
from worldmodel.apps.settings import PlannerSettings
from worldmodel.apps.study.records import (
    Foresight,
    Probes,
    Spread,
    Straightness,
    StudyReport,
    Unavailable,
    Violations,
)

__all__ = ["Content", "actor", "compare_lines", "demo_lines", "historical", "rates", "result_lines",
           "study_lines"]  # fmt: skip

Content = Mapping[str, Any]
"""What a JSON file of a command holds."""
_PUBLISHED_PAIRS, _PUBLISHED_STEPS = 50, (25, 50)


def actor(result: Content) -> str:
    """Who acted: the planner's name, or the policy's."""
    planner = result["fingerprint"]["planner"]
    return planner["name"] if isinstance(planner, dict) else str(planner).removesuffix("Policy")


def historical(result: Content) -> str:
    """What a result of the historical protocol is good for, and how far it follows it."""
    parts = ["for comparison with published tables only"]
    if result["pairs"] < result["manifest_pairs"]:
        parts.append(f"the first {result['pairs']} of {result['manifest_pairs']} pairs")
    elif result["pairs"] < _PUBLISHED_PAIRS:
        parts.append(f"fewer than its {_PUBLISHED_PAIRS} pairs")
    if result["manifest_protocol"] != "historical":
        parts.append("not drawn by it: pairs that were solved at the start are left out")
    if (result["offset"], result["budget"]) != _PUBLISHED_STEPS:
        parts.append("{} steps to the goal and {} allowed, not {} and {}".format(
            result["offset"], result["budget"], *_PUBLISHED_STEPS))  # fmt: skip
    return "; ".join([*parts, *_departures(result["fingerprint"]["planner"])])


def _departures(planner: Content | str) -> list[str]:
    """Where a search is not the published one; settings that change no number are left out."""
    if isinstance(planner, str):
        return ["nothing was planned"]
    published = PlannerSettings(**preset("evaluate", "preset", "published")).described()
    alike = {"temperature", "rate", "together", "compile", "cuda_graph"}
    return [
        f"{'planner' if name == 'name' else name} {planner[name]}, not {value}"
        if name != "held"
        else "a block holds one action, where every action was free"
        for name, value in published.items()
        if name not in alike and planner.get(name, value) != value
    ]


def rates(result: Content) -> list[dict[str, Any]]:
    """Title, rate, interval and rate at the end of who acted and of the policies beside it."""
    rows = ((actor(result), ""), ("random actions", "random_"), ("no action", "noop_"),
            ("scripted expert", "expert_"))  # fmt: skip
    found = []
    for title, key in rows:
        rate = result[f"{key}success_rate"]
        low, high = result[f"{key}success_interval"] or (None, None)
        end = result.get(f"{key}success_rate_at_end")
        found.append({"title": title, "rate": rate, "low": low, "high": high, "at_end": end})
    return found


def result_lines(result: Content, out: Path) -> list[str]:
    """Rates with intervals, floors under them, and what they cost."""
    count = f"{result['pairs']} pairs"
    count += f" × {result['repeats']} seeds" if result["repeats"] > 1 else ""
    label = [f"  HISTORICAL PROTOCOL: {historical(result)}"]
    lines = [
        "",
        *(label if result["protocol"] == "historical" else []),
        f"  {result['env']}, {count}, goals {result['offset']} steps away, "
        f"budget {result['budget']}",
        f"  {'':<24}{'at any step':>12}   {'95 % interval':<18}{'at the end':>12}",
    ]
    for row in rates(result):
        if row["rate"] is None:
            lines.append(f"  {row['title']:<24}{'there is none':>12}")
            continue
        span = f"{percent(row['low'])} – {percent(row['high'])}"
        end = percent(row["at_end"])
        lines.append(f"  {row['title']:<24}{percent(row['rate']):>12}   {span:<18}{end:>12}")
    mark = result["fingerprint"]
    if mark["world_versions"] != mark["manifest_versions"]:
        made, here = (
            ", ".join(f"{name} {version}" for name, version in sorted(mark[key].items()))
            for key in ("manifest_versions", "world_versions")
        )
        lines.append(f"  note: the manifest was made with {made}, this is {here}")
    seconds, distance = result["planning_seconds"], result["final_distance"]
    steps = result["mean_steps_to_goal"]
    taken = "never reached" if steps is None else f"{number(steps)}, where it was reached"
    return [
        *lines,
        f"  steps to the goal       {taken}",
        f"  final distance          median {number(distance['median'])}, 95th percentile "
        f"{number(distance['p95'])}",
        f"  seconds per decision    median {number(seconds['median'])}, 95th percentile "
        f"{number(seconds['p95'])}, for {seconds['pairs_per_decision']} pairs at once",
        f"  look at {out / 'index.html'}; all figures are in {out / 'result.json'}",
    ]


def compare_lines(found: Content, a: str, b: str) -> list[str]:
    """Both rates, their difference and whether chance explains it."""
    lines = [f"A  {a}", f"B  {b}"]
    if found["protocol"] == "historical":
        lines.append("HISTORICAL PROTOCOL: for comparison with published tables only")
    for kind, title in (("success", "at any step"), ("success_at_end", "at the end")):
        part = found[kind]
        lines += [
            f"success {title}, {part['pairs']} pairs",
            f"  A {percent(part['a'])}   B {percent(part['b'])}   "
            f"B − A {points(part['difference'])}",
            f"  better in A {part['only_a_better']}, better in B {part['only_b_better']}, "
            f"exact test p = {p_value(part['p_value'])}",
        ]
    return lines


def demo_lines(report: Content, out: Path) -> list[str]:
    """Success, what is beside it, what the embedding knows, and where to look."""
    low, high = report["success_interval"]
    probes = report["probe_r2"]
    lines = [
        "",
        f"  reached the goal     {percent(report['success_rate'])} of {report['episodes']} pairs"
        f"   (95 % interval {percent(low)} to {percent(high)})",
        f"    within a room      {percent(report['same_room_success_rate'])}",
        f"    across the wall    {percent(report['cross_room_success_rate'])}"
        f"   ({percent(report['cross_room_fraction'])} of the pairs)",
        f"  random policy        {percent(report['random_success_rate'])}",
        f"  start to goal        {report['mean_start_goal_distance']:.1f} success radii on average",
        f"  position from z, R²  linear {_pair(probes['linear'])}   MLP {_pair(probes['mlp'])}",
        f"  prediction loss      {number(report['pred_loss'])}",
        f"  SIGReg               {number(report['sigreg'])}   "
        f"(a Gaussian batch scores {number(report['sigreg_floor'])})",
    ]
    if "ablation" in report:
        both = (report, report["ablation"])
        rows = [
            ("", f"λ = {report['config']['weight']:g}", "λ = 0"),
            ("reached the goal", *(percent(r["success_rate"]) for r in both)),
            ("linear R² x / y", *(_pair(r["probe_r2"]["linear"]) for r in both)),
            ("MLP R² x / y", *(_pair(r["probe_r2"]["mlp"]) for r in both)),
            ("prediction loss", *(number(r["pred_loss"]) for r in both)),
            ("SIGReg", *(number(r["sigreg"]) for r in both)),
        ]
        lines += ["", *(f"  {words:<20} {one:<16} {two}" for words, one, two in rows)]
    seconds = report["wall_seconds"]
    phases = ", ".join(f"{k} {v:.0f}" for k, v in seconds.items() if k != "total" and v >= 1)
    return [
        *lines,
        "",
        f"  took {seconds['total']:.0f} s ({phases})",
        f"  look at {out / 'index.html'}; all figures are in {out / 'report.json'}",
    ]


def study_lines(report: StudyReport, out: Path) -> list[str]:
    """The first figures of every part, and why the others are missing."""
    lines = ["", *(f"  note: {note}" for note in report.notes)]
    for name, part in report.parts.items():
        match part:
            case Probes(quantities=quantities):
                lines += [
                    f"  {q.name:<12} R²  line {interval(q.linear.r2)}   "
                    f"network {interval(q.mlp.r2)}"
                    for q in [q for q in quantities if q.varies][:6]
                ]
            case Foresight():
                lines.append(
                    f"  {part.horizons[-1]} steps ahead  error {interval(part.model[-1])}   "
                    f"copying {interval(part.copy[-1])}"
                )
            case Violations(tests=tests):
                lines += [
                    f"  {pair}  effect {interval(test.effect)} σ, p {p_value(test.p_value)}"
                    for pair, test in tests.items()
                ]
            case Straightness(trained=trained):
                lines.append(f"  straightness {interval(trained)}")
            case Spread(verdict=verdict):
                lines.append(f"  beside a Gaussian  {verdict}")
            case Unavailable(unavailable=reason):
                lines.append(f"  {name}: not measured, {reason}")
    return [*lines, "", f"  {out / 'study.html'} and {out / 'study.json'}"]


def _pair(values: Mapping[str, float]) -> str:
    return f"{values['x']:.3f} / {values['y']:.3f}"
