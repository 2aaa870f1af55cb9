"""`worldmodel evaluate` and `worldmodel compare` on the command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel._files import write_atomically
from worldmodel.apps._arguments import natural, positive
from worldmodel.apps.evaluate import manifest_command
from worldmodel.apps.evaluate.comparing import compare, read_result
from worldmodel.apps.evaluate.films import film_attempts
from worldmodel.apps.evaluate.manifest import (
    PROTOCOLS,
    Manifest,
    read_manifest,
)
from worldmodel.apps.evaluate.planning import PLANNERS, Planner
from worldmodel.apps.evaluate.running import (
    Evaluation,
    Subject,
    evaluate,
    policy_of,
    search_of,
    world_for,
)
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import compare_lines, evaluate_page, result_lines
from worldmodel.apps.runs import Run, open_run
from worldmodel.checkpoint import digest
from worldmodel.gcbc import GCBC

__all__ = ["add_parser"]

_EVALUATE = """\
Plan with a trained model on every pair of a manifest, beside a random policy, an idle one and the
scripted expert, and leave result.json, films and one HTML page in --out.
"""
_COMPARE = """\
The paired difference of two results on one manifest, with an exact test (McNemar's, where each
pair was tried once).
"""

# Settings that not every planner has.
_USED_BY = {
    "elites": ("cem", "icem", "mppi"),
    "temperature": ("mppi",),
    "rate": ("gradient",),
}


def add_parser(commands: Any) -> None:
    """Register the three commands; each sets `run`, a function of the parsed arguments."""
    manifest_command.add_parser(commands)
    _add_evaluate(commands)
    _add_compare(commands)


def _add_evaluate(commands: Any) -> None:
    usual = Planner()
    parser = commands.add_parser(
        "evaluate", help="measure how often plans reach the goals of a manifest",
        description=_EVALUATE, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder with the model")
    parser.add_argument("--manifest", type=Path, required=True, metavar="M.json", help="the task")
    parser.add_argument(
        "--planner", choices=PLANNERS, default=usual.name, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="B",
        help="pairs side by side; changes no outcome (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="K",
        help="try every pair K times, with other seeds each time (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=PROTOCOLS[0],
        help="historical allows training rows and counts 50 pairs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="D", help="(default: %(default)s)")
    numbers = {
        "samples": (positive, "candidates per iteration, or starts of gradient"),
        "iterations": (positive, "per decision"),
        "elites": (positive, "of cem and icem, and candidates that mppi averages"),
        "horizon": (positive, "blocks planned ahead"),
        "execute": (positive, "blocks done before the next plan"),
        "together": (positive, "problems in one call of the model, fixed for equal rounding"),
        "std": (float, "spread of the first candidates"),
        "temperature": (float, "of mppi, in units of the cost"),
        "rate": (float, "step size of gradient"),
    }
    for name, (kind, about) in numbers.items():
        default = getattr(usual, name)
        shown = "64 × 6, for gradient 16 × 24" if default is None else default
        parser.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{about} (default: {shown})"
        )
    parser.add_argument(
        "--cost", choices=["last", "mean", "nearest"], default=usual.cost,
        help="which predictions are compared with the goal (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--free", dest="held", action="store_false",
        help="search every raw action of a block, not one that is held over it",
    )  # fmt: skip
    parser.add_argument(
        "--films", type=natural, default=3, metavar="N",
        help="successes and failures to show in motion (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.set_defaults(run=_evaluate)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="compare two results on one manifest", description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("a", metavar="A.json", help="result.json, or the folder it lies in")
    parser.add_argument("b", metavar="B.json", help="another, on the same manifest")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write it down")
    parser.set_defaults(run=_compare)


def _evaluate(arguments: argparse.Namespace) -> int:
    out = arguments.out
    if (out / "index.html").exists():
        raise FileExistsError(f"--out must not hold a result yet, got {out}: choose another folder")
    chosen = {field.name: getattr(arguments, field.name) for field in fields(Planner)
              if field.name != "name"}  # fmt: skip
    _refuse_unused(arguments)
    evaluation = Evaluation(
        Planner(arguments.planner, **chosen),
        arguments.protocol,
        arguments.batch_size,
        arguments.seeds,
        arguments.device,
    )
    manifest = read_manifest(arguments.manifest)
    run = open_run(arguments.folder, arguments.device)
    if isinstance(run.model, GCBC) and evaluation.planner != Planner(together=arguments.together):
        raise ValueError(
            f"{arguments.folder} holds a policy trained for {run.objective}, which plans nothing: "
            "leave out --planner and its settings"
        )
    if (out / "result.json").exists():
        result = _kept(out, run, manifest, evaluation)
        say(f"{out / 'result.json'} is there; its pictures are made")
    else:
        with Progress("evaluate", len(manifest.seeds) * arguments.seeds, unit="pair") as bar:
            result, _ = evaluate(run, manifest, evaluation, on_pairs=bar.update)
        out.mkdir(parents=True, exist_ok=True)
        # Before its pictures: whatever happens to them, hours of planning are not lost.
        _write(result, out / "result.json")
    films = {}
    if arguments.films:
        world = world_for(Subject.of(run), manifest, evaluation.protocol)
        reached = np.asarray([one["success"] for one in result["outcomes"] if one["repeat"] == 0])
        films = film_attempts(
            world, manifest, policy_of(run, evaluation), reached, out, each=arguments.films
        )
    # The page last: its presence says that everything is there.
    write_atomically(out / "index.html", evaluate_page(result, films).encode())
    for line in result_lines(result, out):
        say(line)
    return 0


def _refuse_unused(arguments: argparse.Namespace) -> None:
    """Refuse a setting that the chosen planner does not have.

    Raises: ValueError naming the planners that have it.
    """
    for name, planners in _USED_BY.items():
        given = getattr(arguments, name) != getattr(Planner(), name)
        if given and arguments.planner not in planners:
            raise ValueError(
                f"--{name} is a setting of {', '.join(planners)}, got it with "
                f"--planner {arguments.planner}"
            )


def _kept(out: Path, run: Run, manifest: Manifest, evaluation: Evaluation) -> dict[str, Any]:
    """The result of an evaluation that was killed before its page was made.

    Raises: ValueError if it is a result of anything else.
    """
    result = read_result(out)
    mark = result["fingerprint"]
    wanted = {
        "weights": (mark["weights"], digest(run.model)),
        "manifest": (result["manifest_hash"], manifest.hash),
        "planner": (mark["planner"], search_of(policy_of(run, evaluation))["planner"]),
        "protocol": (result["protocol"], evaluation.protocol),
        "seeds": (result["repeats"], evaluation.repeats),
    }
    other = [name for name, (there, now) in wanted.items() if there != now]
    if other:
        raise ValueError(f"--out must not hold another result yet, {out} has other {other[0]}")
    return result


def _compare(arguments: argparse.Namespace) -> int:
    found = compare(read_result(arguments.a), read_result(arguments.b))
    for line in compare_lines(found, arguments.a, arguments.b):
        say(line)
    if arguments.out:
        _write(found, arguments.out)
    return 0


def _write(content: dict[str, Any], path: Path) -> None:
    """JSON with one outcome a line."""
    records = content.get("outcomes", [])
    text = json.dumps({k: v for k, v in content.items() if k != "outcomes"}, indent=2)
    if records:
        lines = ",\n".join("    " + json.dumps(record) for record in records)
        text = text.removesuffix("\n}") + ',\n  "outcomes": [\n' + lines + "\n  ]\n}"
    write_atomically(path, text.encode() + b"\n")
