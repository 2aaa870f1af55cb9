"""`worldmodel study`: measure what a trained model has learned; write JSON and a page."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from worldmodel._files import write_atomically
from worldmodel.apps.data.collecting import fresh_walks, open_pictures
from worldmodel.apps.folder import locked, write_json
from worldmodel.apps.machine import device_of, versions
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import render, study_page, write_index
from worldmodel.apps.report.pages import plural
from worldmodel.apps.runs import Run, open_run
from worldmodel.apps.settings import StudySettings
from worldmodel.apps.study import measures
from worldmodel.apps.study.measures import PARTS, Found, Sequences, StudyMaterial
from worldmodel.checkpoint import digest
from worldmodel.data import Episodes, episode_digests
from worldmodel.data.frames import gather
from worldmodel.heads import fit_head, save_head
from worldmodel.study import embed
from worldmodel.worlds import Maze, TwoRoom, open_world
from worldmodel.worlds.contract import kind_of

_JSON, _PAGE, _PROBE = "study.json", "study.html", "probe.safetensors"
_MOST_FRAMES = 24  # per episode
_COLLECT_SEED = 7_368_787  # not a seed of demo and train; digests are checked too


def run(settings: StudySettings) -> int:
    """Study a run; write `study.json`, `study.html` and, if states are known, a linear probe."""
    found = open_run(settings.run, device_of(settings.device), data=settings.data)
    out = settings.out or settings.run
    if not settings.out and not out.is_dir():
        raise ValueError(f"--out must be given for a model of the hub, {out} is no folder here")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out must be a folder, got the file {out}")
    # The settings that change a figure.
    decide = settings.model_dump(mode="json", include={"data", "episodes", "steps", "seed"})
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / ".study.lock", str(out / _JSON)):
            _check(found, decide, out, force=settings.force)
            material = gather_material(found, settings.data, settings.episodes, settings.seed)
            say(f"{material.source}; {found.objective}, {_parameters(found):,} parameters")
            report = study(found, material, seed=settings.seed, steps=settings.steps)
            # The JSON comes first: `_check` refuses a page without it.
            write_json(plain(report) | {"settings": decide}, out / _JSON)
            write_atomically(out / _PAGE, study_page(report).encode())
            if material.fit is not None and material.fit.states is not None:
                # A probe of the state, for `worldmodel.goals.state`.
                z, y = (t.flatten(0, 1) for t in (material.fit.z, material.fit.states))
                if len(z) > z.shape[1]:
                    save_head(fit_head(z, y.to(z)).cpu(), out / _PROBE)
    finally:
        # An error leaves no empty folder.
        if new and not any(out.iterdir()):
            out.rmdir()
    if out.samefile(found.folder):
        write_index(out)
    say(render("study.txt", report=report, out=out))
    return 0


def study(
    run: Run, material: StudyMaterial, *, parts: Sequence[str] = tuple(PARTS), seed: int = 0,
    steps: int = 400,
) -> Found:  # fmt: skip
    """Measure what the world model of a run has learned, on `material` that is new to it.

    `parts` are names in `PARTS`, in the order of the report; `steps` train the decoder.

    Returns: the content of study.json; `unavailable` says why a part was not measured.
    Raises: ValueError if the model gives embeddings that are not finite.
    """
    began, notes = time.perf_counter(), list(material.notes)
    z = material.test.z.flatten(0, 1).double()
    if not bool(z.isfinite().all()):
        raise ValueError(f"the model of {run.folder} gives embeddings that are NaN or infinite")
    variance, length = float(z.var(0, correction=0).mean()), float(z.square().mean())
    # Below this, the variance is rounding, and every ratio of errors is noise.
    if variance <= 1e-10 * length:
        variance = 0.0
        notes.insert(0, "The model has collapsed: every frame has the same embedding.")
    elif variance < 1e-4 * length:
        nearly = "The model has nearly collapsed: embeddings vary by less than 1 % of their length."
        notes.insert(0, nearly)
    lens, found = measures.lens_of(material.fit or material.test), dict[str, Found]()
    given = measures.Study(run, material, lens, variance, seed, steps)
    with Progress("study", len(parts), unit="part") as bar:
        for name in parts:
            try:
                found[name] = PARTS[name](given)
            except measures.UnavailableError as reason:
                found[name] = Found(unavailable=str(reason))
            bar.update()
    T, D = material.test.z.shape[1:]
    return Found(
        run=Found(
            name=run.folder.resolve().name, objective=run.objective, world=run.world,
            parameters=_parameters(run), embedding_dims=D, weights=digest(run.world_model),
        ),
        data=Found(
            source=material.source, fit_episodes=len(material.fit.z) if material.fit else 0,
            test_episodes=len(material.test.z), frames_per_episode=T, frameskip=run.frameskip,
        ),
        notes=notes, parts=found, seed=seed, seconds=round(time.perf_counter() - began, 1),
        versions=versions(),
    )  # fmt: skip


def plain(value: object) -> Any:
    """Convert to JSON: records to dicts, NaN to None, six digits; `shown` is left out."""
    if isinstance(value, Found):
        value = vars(value)
    elif isinstance(value, tuple) and type(value) is not tuple:
        value = value._asdict()  # type: ignore[attr-defined] # of a NamedTuple
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "shown"}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _check(run: Run, decide: dict[str, object], out: Path, *, force: bool) -> None:
    """Refuse to replace another run's study, or without `force` one with other settings."""
    path = out / _JSON
    if not path.exists() and not (out / _PAGE).exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        weights, settled = before["run"].get("weights"), before.get("settings")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        what = "not a study:"
    else:
        if weights != digest(run.world_model) and not (weights is None and force):
            what = "a study of another model:"
        elif settled != decide and not force:
            what = "a study with other settings: add --force to replace it, or"
        else:
            return
    raise FileExistsError(f"{path} is {what} choose another --out")


def _parameters(run: Run) -> int:
    return sum(p.numel() for p in run.world_model.parameters())


def gather_material(
    run: Run, data: str | None, episodes: int, seed: int, *, mazes: bool = False
) -> StudyMaterial:
    """Fresh episodes of Two-Room (with `mazes`, of mazes too), or unseen ones of a data set.

    Raises: ValueError if there is no source, or the run was trained on all its episodes.
    """
    kind, world = kind_of(run.world or ""), None
    fresh = kind == TwoRoom.name or (mazes and kind == "maze")
    source = data or (None if fresh else run.data)
    if source is not None:
        found = open_pictures(source, render=None if data else run.settings.get("render"))
    elif fresh:
        side = int(run.world_model.encoder.image_size)
        world = cast(TwoRoom | Maze, open_world(str(run.world), image_size=side))
        length = max(int(run.settings.get("length", 80)), 4 * run.frameskip)
        found = fresh_walks(world, 2 * episodes, length, _COLLECT_SEED + seed)
    else:
        raise ValueError(
            f"study cannot collect episodes of the world {run.world!r} of {run.folder}: give some "
            "with --data"
        )
    digests = episode_digests(found)
    unseen = torch.tensor([e for e, d in enumerate(digests) if d not in run.trained_on]).long()
    if len(unseen) == 0:
        raise ValueError(
            f"the run was trained on all {len(found)} episodes of {source or run.world}: give "
            "others with --data"
        )
    notes, unknown = list[str](), int((~found.stated[unseen]).sum())
    if unknown:
        every = unknown == len(unseen)
        found = replace(found, states=None) if every else found
        unseen = unseen if every else unseen[found.stated[unseen]]
        left = "all states" if every else "these episodes"
        notes.append(f"{unknown} episodes hold NaN or infinite states; {left} are left out.")
    frames = (found.lengths[unseen] - 1) // run.frameskip + 1
    T = min(int(frames.median()), _MOST_FRAMES)
    if T < 2:
        raise ValueError(
            f"episodes must be longer than frameskip = {run.frameskip} rows, got a median of "
            f"{int(found.lengths[unseen].median())} in {source}"
        )
    long = unseen[frames >= T]
    order = torch.randperm(len(long), generator=torch.Generator().manual_seed(seed))
    chosen = long if world else long[order][: 2 * episodes]
    if seen := sum(d in run.trained_on for d in digests):
        notes.append(f"{seen} training episodes of the run are left out.")
    if len(long) < len(unseen):
        notes.append(f"{len(unseen) - len(long)} episodes under {T} frames are left out.")
    if len(chosen) < 20:
        few = f"Only {plural(len(chosen), 'unseen episode')}"
        notes.append(f"{few}: intervals are wide and rough below about 20.")
    count = 0 if found.states is None else found.states.shape[1]
    names = ["x", "y"] if world else [f"state {i}" for i in range(count)]
    where = f"fresh episodes of {kind}" if world else f"unseen episodes of {source}"
    test = sequences(run, found, chosen[1::2] if len(chosen) > 1 else chosen, T)
    fit = sequences(run, found, chosen[::2], T) if len(chosen) > 1 else None
    return StudyMaterial(fit, test, world, names, f"{len(chosen)} {where}", notes)


def sequences(run: Run, data: Episodes, which: Tensor, T: int = _MOST_FRAMES) -> Sequences:
    """Some episodes as the run's model gets them: every `frameskip`-th row, T at most."""
    k, start = run.frameskip, data.offsets[which][:, None]
    T = min(T, (int(data.lengths[which].min()) - 1) // k + 1)
    rows = start + k * torch.arange(T)
    frames, raw = gather(data.frames, rows), data.actions[start + torch.arange((T - 1) * k)]
    z = embed(run.world_model, frames)
    blocks = raw.unflatten(1, (-1, k)).flatten(2)
    states = None if data.states is None else data.states[rows]
    return Sequences(frames, raw, run.scale.normalise(blocks).to(z.device), states, z)
