"""`worldmodel study`: what a trained model has learned, as JSON and as a page."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from worldmodel._files import write_atomically
from worldmodel.apps.folder import locked, write_json
from worldmodel.apps.machine import device_of, versions
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import study_lines, study_page, write_index
from worldmodel.apps.runs import Run, open_run
from worldmodel.apps.settings import StudySettings
from worldmodel.apps.study import records
from worldmodel.apps.study.embeddings import latent_map, linear_probe, probes, spread, straight
from worldmodel.apps.study.futures import foresight, pictures, violations
from worldmodel.apps.study.material import StudyMaterial, gather_material
from worldmodel.apps.study.parts import Study, UnavailableError, lens_of
from worldmodel.apps.study.records import Part, StudyReport, Unavailable
from worldmodel.checkpoint import digest
from worldmodel.heads import save_head

__all__ = ["PARTS", "run", "study"]

PARTS: dict[str, Callable[[Study], Part]] = {
    "probes": probes,
    "foresight": foresight,
    "violations": violations,
    "straightness": straight,
    "spread": spread,
    "pictures": pictures,
    "map": latent_map,
}
_JSON, _PAGE, _PROBE = "study.json", "study.html", "probe.safetensors"


def run(settings: StudySettings) -> int:
    """Study a run and write `study.json`, `study.html` and, where states are known, a linear probe.

    Raises: FileNotFoundError or ValueError if the run or the data cannot be read, or nothing in
        the data is new to the run; FileExistsError if another study lies in the folder.
    """
    found = open_run(settings.run, device_of(settings.device), data=settings.data)
    out = settings.out or settings.run
    if not settings.out and not out.is_dir():
        raise ValueError(f"--out must be given for a model of the hub, {out} is no folder here")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / ".study.lock", str(out / _JSON)):
            _check(settings, found, out)
            material = gather_material(found, settings.data, settings.episodes, settings.seed)
            say(f"{material.source}; {found.objective}, {_parameters(found):,} parameters")
            report = study(found, material, seed=settings.seed, steps=settings.steps)
            # Figures first: a page without them would be nobody's.
            write_json(records.plain(report) | {"settings": _decides(settings)}, out / _JSON)
            write_atomically(out / _PAGE, study_page(report).encode())
            if (probe := linear_probe(material)) is not None:
                save_head(probe.cpu(), out / _PROBE)
    finally:
        # A mistake leaves no folder behind.
        if not any(out.iterdir()):
            out.rmdir()
    if out.samefile(settings.run):
        write_index(out)
    for line in study_lines(report, out):
        say(line)
    return 0


def study(
    run: Run,
    material: StudyMaterial,
    *,
    parts: Sequence[str] = tuple(PARTS),
    seed: int = 0,
    steps: int = 400,
) -> StudyReport:
    """Measure what a run has learned.

    Args:
        run: Run of a world model.
        material: episodes it has not seen.
        parts: names in `PARTS`, in the order of the report.
        seed: of fits and intervals.
        steps: of the decoder's training.
    Returns: StudyReport. A part that cannot be measured says why.
    Raises: ValueError if the model gives embeddings that are not finite.
    """
    began = time.perf_counter()
    given, notes = _begin(run, material, seed, steps)
    found: dict[str, Part] = {}
    with Progress("study", len(parts), unit="part") as bar:
        for name in parts:
            try:
                found[name] = PARTS[name](given)
            except UnavailableError as reason:
                found[name] = Unavailable(str(reason))
            bar.update()
    T, D = material.test.z.shape[1:]
    fitted = 0 if material.fit is None else len(material.fit.z)
    about = run.folder.resolve().name, run.objective, run.world, _parameters(run), D
    return StudyReport(
        records.RunFacts(*about, digest(run.world_model)),
        records.DataFacts(material.source, fitted, len(material.test.z), T, run.frameskip),
        notes,
        found,
        seed,
        round(time.perf_counter() - began, 1),
        versions(),
    )


def _begin(run: Run, material: StudyMaterial, seed: int, steps: int) -> tuple[Study, list[str]]:
    z = material.test.z.flatten(0, 1).double()
    if not bool(z.isfinite().all()):
        raise ValueError(f"the model of {run.folder} gives embeddings that are NaN or infinite")
    variance, length = float(z.var(0, correction=0).mean()), float(z.square().mean())
    notes = list(material.notes)
    # Below this, what varies is rounding, and every ratio of errors is noise.
    if variance <= 1e-10 * length or variance == 0:
        variance = 0.0
        notes.insert(0, "The model has collapsed: every frame has the same embedding.")
    elif math.sqrt(variance) < 0.01 * math.sqrt(length):
        nearly = "The model has nearly collapsed: embeddings differ by less than a hundredth of"
        notes.insert(0, f"{nearly} their length.")
    lens = lens_of(material.fit or material.test)
    return Study(run, material, lens, variance, seed, steps), notes


def _check(settings: StudySettings, run: Run, out: Path) -> None:
    """Refuse to write over a study of another run, or without --force over one of other settings.

    Raises: FileExistsError, with what to do instead.
    """
    path = out / _JSON
    if not path.exists() and not (out / _PAGE).exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        weights, settled = before["run"].get("weights"), before.get("settings")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        what = "no study of ours:"
    else:
        if weights != digest(run.world_model) and not (weights is None and settings.force):
            what = "a study of another model:"
        elif settled != _decides(settings) and not settings.force:
            what = "a study with other settings: add --force to replace it, or"
        else:
            return
    raise FileExistsError(f"{path} is {what} choose another --out")


def _decides(settings: StudySettings) -> dict[str, object]:
    """The settings that decide a figure."""
    return settings.model_dump(mode="json", include={"data", "episodes", "steps", "seed"})


def _parameters(run: Run) -> int:
    return sum(p.numel() for p in run.world_model.parameters())
