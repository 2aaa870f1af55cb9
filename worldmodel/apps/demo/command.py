"""`worldmodel demo`: from nothing to an agent that plans in latent space, in minutes.

Collect episodes of a noisy walker in Two-Room, train a world model on their pixels by the two-term
loss, study it, plan to goals of unseen episodes, and write down what came of it.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sigreg import noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps.demo.material import DemoMaterial, gather, seed_for, walks_of
from worldmodel.apps.evaluate.films import film_of
from worldmodel.apps.evaluate.planning import PlannerPolicy
from worldmodel.apps.evaluate.result import Result
from worldmodel.apps.evaluate.running import evaluate
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import commit, device_of, machine, versions
from worldmodel.apps.parsing import check_kept, complete, kept_settings
from worldmodel.apps.progress import say
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.report import (
    demo_lines,
    demo_page,
    latent_map,
    save_chart,
    training_curves,
    write_film,
    write_index,
)
from worldmodel.apps.runs import Run, open_run
from worldmodel.apps.settings import BUILT_IN, DemoSettings, TrainSettings, TrialSettings
from worldmodel.apps.study.command import study
from worldmodel.apps.study.material import StudyMaterial, walked
from worldmodel.apps.study.records import LatentMap, Part, Probes
from worldmodel.apps.train.command import CHECKPOINTS, train
from worldmodel.apps.train.material import cut
from worldmodel.apps.train.reports import read_table
from worldmodel.worlds import TwoRoom

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLANNER", "run"]

_SETTINGS, _REPORT = "demo.json", "report.json"
_WITHOUT = "without-sigreg"  # folder of the ablation
PLANNER = TrialSettings(planner="cem")
"""Who plans."""


class Figures(NamedTuple):
    """What `report.json` holds of one model; R² by probe and coordinate."""

    success_rate: float
    success_interval: tuple[float, float]
    same_room_success_rate: float | None
    cross_room_success_rate: float | None
    probe_r2: dict[str, dict[str, float]]
    pred_loss: float
    sigreg: float


class Learned(NamedTuple):
    """A trained model, what came of its plans, its map, and how far its embeddings spread."""

    run: Run
    result: Result
    figures: Figures
    map: Part
    spread: float


class Clock:
    """Seconds per phase, told as each begins and ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, about: str) -> Iterator[None]:
        """Measure a block and say what it does."""
        say(f"{name}: {about}")
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 2)
        say(f"{name} took {seconds:.0f} s")


def run(settings: DemoSettings) -> int:
    """Run the whole pipeline and leave a run folder behind."""
    out, clock = settings.out, Clock()
    try:
        with begin_folder(out, _SETTINGS, resume=settings.resume, done=_REPORT, worth=CHECKPOINTS):
            if settings.resume:
                check_kept(settings, kept_settings(DemoSettings, "demo", out / _SETTINGS))
            sizes = (
                f"{settings.episodes} episodes to learn from, {settings.held_out} to be tried on"
            )
            with clock.phase("collect", sizes):
                material = gather(settings)
            write_json(settings.model_dump(mode="json"), out / _SETTINGS)
            found = _learn(settings, material, out, clock)
            with clock.phase("pictures", "curves, map and film"):
                pictures = _draw(found, material, out)
            report = _report(settings, material, found)
            if settings.ablate:
                with clock.phase("ablation", "the same without SIGReg, λ = 0"):
                    (out / _WITHOUT).mkdir(exist_ok=True)
                    without = settings.model_copy(update={"weight": 0.0})
                    other = _learn(without, material, out / _WITHOUT, Clock())
                spread = float(f"{other.spread:.3g}")
                figures = other.figures._asdict()
                report["ablation"] = {"weight": 0.0, **figures, "embedding_std": spread}
            total = round(sum(clock.seconds.values()), 2)
            report["wall_seconds"] = clock.seconds | {"total": total}
            write_atomically(out / "demo.html", demo_page(report, pictures).encode())
            write_json(report, out / _REPORT)
            write_index(out)
    except KeyboardInterrupt:
        words = ["worldmodel", "demo", "--resume", *(["--ablate"] if settings.ablate else [])]
        again = shlex.join([*words, "--out", str(out)])
        say(f"\ninterrupted; continue with: {again}" if out.exists() else "\nnothing was kept")
        raise
    for line in demo_lines(report, out):
        say(line)
    return 0


def _learn(settings: DemoSettings, material: DemoMaterial, out: Path, clock: Clock) -> Learned:
    """Train, study and evaluate one model, by the functions of the commands."""
    device = device_of(settings.device)
    with clock.phase("train", f"{settings.steps} steps of {settings.batch_size} windows"):
        told = _training(settings, out, device)
        parts = cut(told, *((e, torch.arange(len(e))) for e in (material.seen, material.unseen)))
        train(told, parts, Ranks(device=device))
    run = open_run(out, device)
    with clock.phase("probe", "where the agent is, read from the embedding, and a map of it"):
        seen, unseen = (
            walked(run, material.world, walks_of(episodes, settings.held_out))
            for episodes in (material.seen, material.unseen)
        )
        shown = StudyMaterial(seen, unseen, material.world, ["x", "y"], "the demo's own", [])
        seed = seed_for(settings, "probe")
        studied = study(run, shown, parts=("probes", "map"), seed=seed)
    with clock.phase("plan", f"{settings.pairs} pairs, {settings.budget} steps each"):
        result = evaluate(run, material.manifest, PLANNER, world=material.world, title="plan")
    probes, crosses = studied.parts["probes"], _crossing(material)
    if not isinstance(probes, Probes):
        raise ValueError(f"held_out must leave episodes enough to probe: {probes}")
    losses = read_table(out / "curves.csv")
    figures = Figures(
        result.success_rate, result.success_interval,
        _rate(result.reached[~crosses]), _rate(result.reached[crosses]),
        {
            "linear": {q.name: round(q.linear.r2.value, 4) for q in probes.quantities},
            "mlp": {q.name: round(q.mlp.r2.value, 4) for q in probes.quantities},
        },
        *(float(f"{losses[name][-1]:.4g}") for name in ("prediction", "regularization")),
    )  # fmt: skip
    spread = float(unseen.z.flatten(0, 1).std(0).mean())
    return Learned(run, result, figures, studied.parts["map"], spread)


def _training(settings: DemoSettings, out: Path, device: str) -> TrainSettings:
    """What `worldmodel train` would be told."""
    own = {"dim": settings.dim}
    named = {
        "data": BUILT_IN, "world": BUILT_IN, "out": out, "resume": settings.resume,
        "device": device, "workers": 0, "checkpoint_every": 100,
        "held_out": settings.held_out / (settings.held_out + settings.episodes),
        "model": {"encoder": own, "action_encoder": own, "predictor": own},
    }  # fmt: skip
    return complete(TrainSettings, "train", settings.common(TrainSettings), named)


def _draw(
    found: Learned, material: DemoMaterial, out: Path
) -> dict[str, Path | Figure | LatentMap]:
    """What the page shows, by title."""
    # Three across the wall, three within a room, the first drawn of each: none is picked.
    crosses = _crossing(material)
    chosen = np.concatenate([np.flatnonzero(crosses)[:3], np.flatnonzero(~crosses)[:3]])
    policy = PlannerPolicy(
        found.run.world_model, found.run.scale, frameskip=found.run.frameskip, planner=PLANNER
    )
    film = film_of(material.world, material.manifest, policy, chosen)
    film = film._replace(names=[""] * len(chosen), expected=None, decided=None)
    write_film(film, TwoRoom(160), out / "episodes.gif", across=2)
    tables = (read_table(out / name) for name in ("curves.csv", "held_out.csv"))
    curves = training_curves(*tables, floor=noise_floor())
    save_chart(curves, out / "curves.png")
    drawn: dict[str, Path | Figure | LatentMap] = {"Plans in motion": out / "episodes.gif"}
    if isinstance(found.map, LatentMap):
        drawn["The latent space"] = found.map
        save_chart(latent_map(found.map)[0], out / "latent.png")
    return drawn | {"Its training": curves}


def _report(settings: DemoSettings, material: DemoMaterial, found: Learned) -> dict[str, object]:
    """What `report.json` holds, but for the ablation and the seconds."""
    manifest, world, result = material.manifest, material.world, found.result
    distance = world.distance(manifest.starts, manifest.goals) / world.success_radius
    return {
        **found.figures._asdict(),
        "random_success_rate": result.random_success_rate,
        "episodes": result.pairs,
        "pairs_dropped_as_solved": manifest.dropped_as_solved,
        "cross_room_fraction": _rate(_crossing(material)),
        "mean_start_goal_distance": round(float(distance.mean()), 3),
        "mean_steps_to_goal": result.mean_steps_to_goal,
        "sigreg_floor": round(noise_floor(), 4),
        "seed": settings.seed,
        "config": settings.model_dump(mode="json"),
        "versions": versions(),
        "git_commit": commit(),
        "machine": machine(device_of(settings.device)),
    }


def _crossing(material: DemoMaterial) -> NDArray[np.bool_]:
    """Which pairs lie across the wall."""
    room = material.world.room
    out: NDArray[np.bool_] = room(material.manifest.starts) != room(material.manifest.goals)
    return out


def _rate(flags: NDArray[np.bool_]) -> float | None:
    """Share of true ones, or None of nothing."""
    return round(float(flags.mean()), 4) if len(flags) else None
