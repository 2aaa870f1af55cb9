"""Choose λ by bisection: short runs, judged on held-out episodes.

More weight on SIGReg lowers what the distribution falls short of and raises what the prediction
falls short of (`tune_trial`). The λ that makes the larger of the two smallest is where they meet:
the sign change of their difference. docs/tune-lambda.md says why.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worldmodel._files import write_atomically
from worldmodel.apps.progress import say
from worldmodel.apps.report import save_chart, tune_chart, tune_page
from worldmodel.apps.tune.bisection import Bracket, bisect_log
from worldmodel.apps.tune.trial import Trial, TuneConfig, run_trial, tune_material

__all__ = ["run_tune"]


def run_tune(
    config: TuneConfig, out: Path, *, low: float, high: float, runs: int, resume: bool = False
) -> Bracket:
    """Find λ between `low` and `high`, and leave `tune.json` and `tune.png` in a folder.

    `tune.json` is written after every trial; a resumed search takes from it every λ it has, so an
    interrupted one loses at most one trial and a wider one repeats none.

    Args:
        config: TuneConfig.
        out: folder; must not exist, unless `resume`.
        low: smallest λ tried.
        high: largest.
        runs: short runs at most, both ends included, at least 3.
        resume: go on with the trials in `out`, which must be of the same config.
    Returns: Bracket.
    Raises: FileExistsError, FileNotFoundError; ValueError if λ does not lie between `low` and
        `high` (the trials are kept); NonFiniteError.
    """
    if not 0 < low < high < math.inf or runs < 3:
        raise ValueError(
            f"low, high and runs must be 0 < low < high and runs >= 3, "
            f"got {low:g}, {high:g} and {runs}"
        )
    known = _read(config, out) if resume else _none(out)
    material = tune_material(config)
    if not resume:
        _make(config, out)
    say(
        f"λ between {low:g} and {high:g}, in {runs} runs of {config.steps} steps on "
        f"{len(material.train):,} windows, judged by {len(material.judges):,} held-out ones"
    )
    count = 0

    def gap(weight: float) -> float:
        nonlocal count
        count += 1
        again = weight in known
        if not again:
            known[weight] = run_trial(config, material, weight)
            _write(config, out, known, None)
        trial = known[weight]
        say(
            f"run {count} of {runs}  λ {weight:<8.3g}  prediction {trial.prediction:.3f}  "
            f"distribution {trial.distribution:.3f}  {'more λ' if trial.gap < 0 else 'less λ'}"
            + ("  (known)" if again else "")
        )
        return trial.gap

    try:
        bracket = bisect_log(gap, low, high, runs)
    finally:
        if len(known) > 1:
            save_chart(tune_chart([t._asdict() for t in known.values()], None), out / "tune.png")
    _write(config, out, known, bracket)
    shown = tune_chart([t._asdict() for t in known.values()], bracket.middle)
    save_chart(shown, out / "tune.png")
    content = json.loads((out / "tune.json").read_text())
    write_atomically(out / "tune.html", tune_page(content).encode())
    return bracket


def _none(out: Path) -> dict[float, Trial]:
    """No trials, where there is no folder yet."""
    if out.exists():
        remedy = "add --resume to go on with it, or " if (out / "tune.json").is_file() else ""
        raise FileExistsError(f"--out must not exist yet, got {out}: {remedy}choose another folder")
    return {}


def _make(config: TuneConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise OSError(
            f"--out must be a folder that can be made, got {out}: {error.strerror}"
        ) from error
    _write(config, out, {}, None)


def _read(config: TuneConfig, out: Path) -> dict[float, Trial]:
    """The trials of a folder to go on with, by λ."""
    path = out / "tune.json"
    if not path.is_file():
        raise FileNotFoundError(f"--resume needs a folder with tune.json, got {out}")
    try:
        content = json.loads(path.read_text())
        settings = dict(content["config"])
        trials = [Trial(**{k: float(t[k]) for k in Trial._fields}) for t in content["trials"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    mine = asdict(config)
    changed = [f"{k} {settings.get(k)} → {v}" for k, v in mine.items() if settings.get(k) != v]
    if changed:
        raise ValueError(f"--resume must keep the search's settings, got {', '.join(changed)}")
    return {trial.weight: trial for trial in trials}


def _write(
    config: TuneConfig, out: Path, trials: dict[float, Trial], bracket: Bracket | None
) -> None:
    content: dict[str, Any] = {
        "config": asdict(config),
        "trials": [t._asdict() | {"gap": t.gap} for t in trials.values()],
    }
    if bracket is not None:
        content["result"] = {
            "weight": bracket.middle,
            "low": bracket.low,
            "high": bracket.high,
            "monotone": bracket.monotone,
        }
    write_atomically(out / "tune.json", (json.dumps(content, indent=1) + "\n").encode())
