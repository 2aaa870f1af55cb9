"""`worldmodel study`: what a trained model has learned, as JSON and as a page."""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from worldmodel._files import write_atomically
from worldmodel.apps._arguments import natural, positive
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.runs import Run, open_run
from worldmodel.apps.study.embeddings import latent_map, probes, spread, straight
from worldmodel.apps.study.futures import foresight, pictures, violations
from worldmodel.apps.study.material import StudyMaterial, gather_material
from worldmodel.apps.study.page import page
from worldmodel.apps.study.parts import Study, UnavailableError, lens_of, plain

__all__ = ["PARTS", "add_parser", "run_study"]

PARTS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "probes": probes,
    "foresight": foresight,
    "violations": violations,
    "straightness": straight,
    "spread": spread,
    "pictures": pictures,
    "map": latent_map,
}

_ABOUT = """\
Measure what a run has learned, on episodes it was not trained on: probes of the true state,
surprise at the impossible, straightness of latent paths, error against horizon, effective rank,
decoded rollouts and a map. Writes study.json and one HTML page that needs no network.
"""
_EXAMPLES = """\
examples:
  worldmodel study runs/demo                       into the run's folder
  worldmodel study runs/mine --data pushes.h5      the episodes of a file that are new to the run
  worldmodel study runs/demo --out somewhere       another folder
"""


def add_parser(commands: Any) -> None:
    """Register `study`; it sets `run`, a function of the parsed arguments."""
    parser = commands.add_parser(
        "study",
        help="measure what a run has learned, into one page",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder of demo or train")
    parser.add_argument(
        "--data", metavar="DATA",
        help="HDF5 file, LeRobot folder, Minari folder or id (default: fresh episodes of the "
        "built-in world, or what the run kept apart)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: the run folder)"
    )
    parser.add_argument(
        "--episodes", type=positive, default=100, metavar="N",
        help="episodes to measure, and as many again to fit probes on (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=positive, default=400, metavar="N",
        help="training steps of the decoder (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N",
        help="of episodes, fits and intervals (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="D", help="where the model runs")
    parser.set_defaults(run=_study)


def _study(arguments: argparse.Namespace) -> int:
    out = arguments.out or arguments.folder
    try:
        report = run_study(
            arguments.folder, out, data=arguments.data, episodes=arguments.episodes,
            steps=arguments.steps, seed=arguments.seed, device=arguments.device,
        )  # fmt: skip
    except RuntimeError as error:
        # torch's word for a device it cannot use, or for too little memory.
        raise ValueError(str(error).splitlines()[0]) from error
    for line in _summary(report, out):
        say(line)
    return 0


def run_study(
    folder: Path,
    out: Path,
    *,
    data: str | None = None,
    episodes: int = 100,
    steps: int = 400,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Study a run and write `study.json` and `study.html`.

    Args:
        folder: of the run, as `demo` and `train` leave it.
        out: where to write; made if absent.
        data: a data set; None collects in the built-in world, or takes the run's own file.
        episodes: to measure, and as many again to fit on.
        steps: of the decoder's training.
        seed: of episodes, fits and intervals.
        device: where the model runs.
    Returns: what `study.json` holds.
    Raises: FileNotFoundError or ValueError if the run or the data cannot be read, or nothing in
        the data is new to the run. A part that cannot be measured says why in the report.
    """
    began = time.perf_counter()
    run = open_run(folder, device)
    material = gather_material(run, data, episodes, seed)
    say(f"{material.source}; {run.objective}, {_parameters(run):,} parameters")
    study, notes = _begin(run, material, seed, steps)
    parts: dict[str, Any] = {}
    with Progress("study", len(PARTS), unit="part") as bar:
        for name, measure in PARTS.items():
            try:
                parts[name] = plain(measure(study))
            except UnavailableError as reason:
                parts[name] = {"unavailable": str(reason)}
            bar.update()
    report = {
        "run": {
            "name": run.folder.resolve().name,
            "objective": run.objective,
            "world": run.world,
            "parameters": _parameters(run),
            "embedding_dims": material.test.z.shape[-1],
        },
        "data": {
            "source": material.source,
            "fit_episodes": 0 if material.fit is None else len(material.fit.z),
            "test_episodes": len(material.test.z),
            "frames_per_episode": material.test.z.shape[1],
            "frameskip": run.frameskip,
        },
        "notes": notes,
        "parts": parts,
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "versions": _versions(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "study.html", page(report).encode())
    report["parts"] = {name: _without_pictures(part) for name, part in parts.items()}
    text = json.dumps(report, indent=1, allow_nan=False)
    write_atomically(out / "study.json", text.encode() + b"\n")
    return report


def _begin(run: Run, material: StudyMaterial, seed: int, steps: int) -> tuple[Study, list[str]]:
    z = material.test.z.flatten(0, 1)
    if not bool(z.isfinite().all()):
        raise ValueError(f"the model of {run.folder} gives embeddings that are NaN or infinite")
    variance = float(z.double().var(0, correction=0).mean())
    notes = list(material.notes)
    # Below this, what varies is rounding, and every ratio of errors is noise.
    if variance <= 1e-10 * float(z.double().square().mean()) or variance == 0:
        variance = 0.0
        notes.insert(0, "The model has collapsed: every frame has the same embedding.")
    elif math.sqrt(variance) < 0.01 * float(z.double().square().mean().sqrt()):
        notes.insert(
            0,
            "The model has nearly collapsed: embeddings differ by less than a hundredth of their "
            "length.",
        )
    return Study(
        run, material, lens_of(material.fit or material.test), variance, seed, steps
    ), notes


def _without_pictures(part: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in part.items() if k not in ("pictures", "points", "states", "time")}


def _parameters(run: Run) -> int:
    return sum(p.numel() for p in run.world_model.parameters())


def _versions() -> dict[str, str]:
    try:
        own = version("sigreg")
    except PackageNotFoundError:
        own = "not installed"
    return {"sigreg": own, "torch": torch.__version__, "python": platform.python_version()}


def _summary(report: dict[str, Any], out: Path) -> list[str]:
    parts, lines = report["parts"], [""]
    lines += [f"  note: {note}" for note in report["notes"]]
    for q in parts["probes"].get("quantities", [])[:6]:
        if q["varies"]:
            lines.append(
                f"  {q['name']:<12} R²  line {_words(q['linear']['r2'])}   "
                f"network {_words(q['mlp']['r2'])}"
            )
    if "model" in parts["foresight"]:
        f = parts["foresight"]
        lines.append(
            f"  {f['horizons'][-1]} steps ahead  error {_words(f['model'][-1])}   "
            f"copying {_words(f['copy'][-1])}"
        )
    for name, test in parts["violations"].get("tests", {}).items():
        lines.append(
            f"  {name}  effect {_words(test['effect'])} σ, p {max(test['p_value'], 1e-12):.2g}"
        )
    if "trained" in parts["straightness"]:
        lines.append(f"  straightness {_words(parts['straightness']['trained'])}")
    if "verdict" in parts["spread"]:
        lines.append(f"  beside a Gaussian  {parts['spread']['verdict']}")
    lines += [
        f"  {name}: not measured, {part['unavailable']}"
        for name, part in parts.items()
        if "unavailable" in part
    ]
    return [*lines, "", f"  {out / 'study.html'} and {out / 'study.json'}"]


def _words(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    if estimate["low"] is None:
        return f"{estimate['value']:.3g}"
    return f"{estimate['value']:.3g} ({estimate['low']:.3g} to {estimate['high']:.3g})"
