"""Two results on one manifest: which is better, and could it be chance?"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from worldmodel.study import sign_test

__all__ = ["compare", "read_result"]


def read_result(path: str | Path) -> dict[str, Any]:
    """A `result.json` that `worldmodel evaluate` wrote, or the folder it lies in.

    Raises: FileNotFoundError if there is none; ValueError if it is something else.
    """
    file = Path(path) / "result.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no result at {file}")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        if {"manifest_hash", "outcomes", "protocol"} <= set(result):
            return dict(result)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no result: {error}") from error
    raise ValueError(f"{file} is no result of `worldmodel evaluate`")


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The paired difference of two results, with an exact test.

    A pair's score is the share of its repeats that reached the goal. With one repeat each, the
    sign test over pairs is McNemar's exact test.

    Args:
        a: as `read_result` gives it.
        b: likewise.
    Returns: rates, counts of pairs and the p-value, for success at any step and after the last.
    Raises: ValueError if the manifests or protocols differ, or the pairs tried.
    """
    if a["manifest_hash"] != b["manifest_hash"]:
        raise ValueError(
            "the results must be of one manifest, got "
            f"{a['manifest_hash'][:12]}… and {b['manifest_hash'][:12]}…"
        )
    if a["protocol"] != b["protocol"]:
        raise ValueError(
            f"the results must be of one protocol, got {a['protocol']} and {b['protocol']}"
        )
    found: dict[str, Any] = {"manifest_hash": a["manifest_hash"], "protocol": a["protocol"]}
    for kind in ("success", "success_at_end"):
        one, two = _scores(a, kind), _scores(b, kind)
        if set(one) != set(two):
            raise ValueError(
                f"the results must hold the same pairs, got {len(one)} and {len(two)} of them"
            )
        differences = [two[pair] - one[pair] for pair in sorted(one)]
        found[kind] = {
            "a": round(sum(one.values()) / len(one), 4),
            "b": round(sum(two.values()) / len(two), 4),
            "difference": round(sum(differences) / len(differences), 4),
            "pairs": len(differences),
            "only_a_better": sum(d < 0 for d in differences),
            "only_b_better": sum(d > 0 for d in differences),
            "p_value": sign_test(differences),
        }
    return found


def _scores(result: dict[str, Any], kind: str) -> dict[int, float]:
    """Share of successes by pair."""
    tries = defaultdict(list)
    for record in result["outcomes"]:
        tries[record["pair"]].append(bool(record[kind]))
    return {pair: sum(flags) / len(flags) for pair, flags in tries.items()}
