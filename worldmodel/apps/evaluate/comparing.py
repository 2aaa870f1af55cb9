"""`worldmodel compare`: two results on one manifest: which is better, and could it be chance?"""

from __future__ import annotations

from collections import defaultdict

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.result import Result, read_result
from worldmodel.apps.folder import check_new_file, write_json
from worldmodel.apps.progress import say
from worldmodel.apps.reading import Record
from worldmodel.apps.report import render
from worldmodel.apps.settings import CompareSettings, Protocol
from worldmodel.study import sign_test

__all__ = ["Comparison", "Difference", "compare", "run"]


class Difference(Record):
    """Both rates over the same pairs, on how many they differ, and the exact test's p-value."""

    a: float
    b: float
    difference: float
    pairs: int
    only_a_better: int
    only_b_better: int
    p_value: float


class Comparison(Record):
    """What `compare --out` writes: differences at any step, and after the last."""

    manifest_hash: str
    protocol: Protocol
    success: Difference
    success_at_end: Difference


def run(settings: CompareSettings) -> int:
    """Compare two results, say what came of it, and write it down if asked to."""
    inputs = [path / "result.json" if path.is_dir() else path for path in (settings.a, settings.b)]
    outputs = [settings.out, settings.out.with_suffix(".html")] if settings.out else []
    for path in outputs:
        check_new_file(path, inputs)
    found, names = compare(*map(read_result, inputs)), (str(settings.a), str(settings.b))
    say(render("compare.txt", found=found, names=names))
    if outputs:
        write_json(found.model_dump(), outputs[0])
        page = render("compare.html", found=found, names=names)
        write_atomically(outputs[1], page.encode())
    return 0


def compare(a: Result, b: Result) -> Comparison:
    """The paired difference of two results, with an exact test.

    A pair's score is the share of its repeats that reached the goal. With one repeat each, the
    sign test over pairs is McNemar's exact test.

    Raises: ValueError if the manifests or protocols differ, or the pairs tried.
    """
    if a.manifest_hash != b.manifest_hash:
        raise ValueError(
            "the results must be of one manifest, got "
            f"{a.manifest_hash[:12]}… and {b.manifest_hash[:12]}…"
        )
    if a.protocol != b.protocol:
        raise ValueError(f"the results must be of one protocol, got {a.protocol} and {b.protocol}")
    kinds = {name: _difference(a, b, name) for name in ("success", "success_at_end")}
    return Comparison(manifest_hash=a.manifest_hash, protocol=a.protocol, **kinds)


def _difference(a: Result, b: Result, kind: str) -> Difference:
    scores = []
    for result in (a, b):
        tries = defaultdict(list)
        for tried in result.outcomes:
            tries[tried.pair].append(bool(getattr(tried, kind)))
        scores.append({pair: sum(flags) / len(flags) for pair, flags in tries.items()})
    one, two = scores
    if set(one) != set(two):
        raise ValueError(
            f"the results must hold the same pairs, got {len(one)} and {len(two)} of them"
        )
    gaps = [two[pair] - one[pair] for pair in sorted(one)]
    rates = [round(sum(part) / len(one), 4) for part in (one.values(), two.values(), gaps)]
    return Difference(
        a=rates[0], b=rates[1], difference=rates[2], pairs=len(one), p_value=sign_test(gaps),
        only_a_better=sum(gap < 0 for gap in gaps), only_b_better=sum(gap > 0 for gap in gaps),
    )  # fmt: skip
