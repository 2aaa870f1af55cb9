"""`worldmodel evaluate`: a run on a manifest, kept pair by pair, and a folder that shows it."""

from __future__ import annotations

from contextlib import ExitStack

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate.films import film_attempts
from worldmodel.apps.evaluate.manifest import read_manifest
from worldmodel.apps.evaluate.result import PLANNED, Log, Mark, write_result
from worldmodel.apps.evaluate.trial import prepare, result_of, tries
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import device_of
from worldmodel.apps.parsing import kept_settings
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import joined
from worldmodel.apps.report import render, write_index
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import EvaluateSettings

__all__ = ["run"]

SETTINGS = "evaluate.json"


def run(settings: EvaluateSettings) -> int:
    """Evaluate a run, or continue where it was stopped; every process takes its share."""
    out = settings.out
    with ExitStack() as held, joined(settings.device) as ranks:
        with ranks.together():
            settings = settings.model_copy(update={"device": device_of(settings.device)})
            resume = _check_out(settings)
            manifest = read_manifest(settings.manifest)
            subject = open_run(settings.run, ranks.device, data=settings.data)
            trial = prepare(subject, manifest, settings)
            mark = Mark(manifest=manifest.sha256, weights=trial.fingerprint.weights)
            if ranks.first:
                held.enter_context(begin_folder(out, SETTINGS, resume=resume))
        with ranks.together():
            log, keys = Log(out, mark, ranks.rank), trial.keys
            if ranks.first:
                write_json(settings.model_dump(mode="json"), out / SETTINGS)
            left = [key for key in keys if key not in log.tried]
        with ranks.together():
            # In turns, so that nobody has the planning and somebody else the idling.
            mine, done = left[ranks.rank :: ranks.size], len(keys) - len(left)
            with Progress(
                "evaluate", done + len(mine), start=done, unit="attempt", quiet=not ranks.first
            ) as bar:
                for some in tries(trial, mine, bar):
                    log.write(some)
        if not ranks.first:
            return 0
        result = result_of(trial, [Log(out, mark).tried[key] for key in keys])
        # Before its pictures: whatever happens to them, hours of planning are not lost.
        write_result(result, out / "result.json")
        acting, reached = trial.policies[PLANNED], result.reached
        films = film_attempts(
            trial.world, trial.manifest, acting, reached, out, each=settings.films
        )
        # The page last: its presence says that everything is there.
        content = result.model_dump(mode="json")
        page = render("evaluate.html", result=content, films=films)
        write_atomically(out / "index.html", page.encode())
        if out.absolute().parent == settings.run.absolute():
            write_index(settings.run)
    say(render("evaluate.txt", result=content, out=out))
    return 0


def _check_out(settings: EvaluateSettings) -> bool:
    """Whether an evaluation by the same settings was begun in --out.

    Raises: FileExistsError if one is finished there; ValueError if it has other settings.
    """
    out, begun = settings.out, settings.out / SETTINGS
    if (out / "index.html").exists():
        raise FileExistsError(f"--out must not hold a result yet, got {out}: choose another folder")
    if not begun.is_file():
        return False
    if other := settings.changed(kept_settings(EvaluateSettings, "evaluate", begun, out=out)):
        raise ValueError(
            f"--out must not hold another evaluation yet, {out} has other settings: "
            + ", ".join(other)
        )
    return True
