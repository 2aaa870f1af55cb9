"""Two results on one manifest: which is better, and could it be chance?"""

from __future__ import annotations

from collections import defaultdict

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.result import Result, read_result
from worldmodel.apps.folder import check_new_file, write_json
from worldmodel.apps.parsing import Record
from worldmodel.apps.progress import say
from worldmodel.apps.report import compare_lines, compare_page
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
    found = compare(*(read_result(path) for path in inputs))
    content, names = found.model_dump(), (str(settings.a), str(settings.b))
    for line in compare_lines(content, *names):
        say(line)
    if settings.out:
        write_json(content, outputs[0])
        write_atomically(outputs[1], compare_page(content, names).encode())
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
    return Comparison(
        manifest_hash=a.manifest_hash,
        protocol=a.protocol,
        success=_difference(*(_scores(one, "success") for one in (a, b))),
        success_at_end=_difference(*(_scores(one, "success_at_end") for one in (a, b))),
    )


def _scores(result: Result, kind: str) -> dict[int, float]:
    """Share of successes by pair."""
    tries = defaultdict(list)
    for one in result.outcomes:
        tries[one.pair].append(bool(getattr(one, kind)))
    return {pair: sum(flags) / len(flags) for pair, flags in tries.items()}


def _difference(a: dict[int, float], b: dict[int, float]) -> Difference:
    if set(a) != set(b):
        raise ValueError(f"the results must hold the same pairs, got {len(a)} and {len(b)} of them")
    differences = [b[pair] - a[pair] for pair in sorted(a)]
    means = [round(sum(part) / len(a), 4) for part in (a.values(), b.values(), differences)]
    return Difference(
        a=means[0], b=means[1], difference=means[2], pairs=len(a),
        only_a_better=sum(d < 0 for d in differences),
        only_b_better=sum(d > 0 for d in differences), p_value=sign_test(differences),
    )  # fmt: skip
