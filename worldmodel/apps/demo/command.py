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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigreg import noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps.demo.material import DemoMaterial, gather, seed_for, walks_of
from worldmodel.apps.devices import device_of
from worldmodel.apps.evaluate.films import film_of
from worldmodel.apps.evaluate.planning import PlannerPolicy
from worldmodel.apps.evaluate.result import Result
from worldmodel.apps.evaluate.running import evaluate
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.parsing import complete, read_settings
from worldmodel.apps.progress import say
from worldmodel.apps.provenance import commit, machine, versions
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
from worldmodel.apps.study.records import LatentMap, Probes, StudyReport
from worldmodel.apps.train.command import CHECKPOINTS, begin, train
from worldmodel.apps.train.material import cut, every
from worldmodel.apps.train.reports import read_table
from worldmodel.worlds import TwoRoom

__all__ = ["PLANNER", "run"]

_SETTINGS, _REPORT = "demo.json", "report.json"
_WITHOUT = "without-sigreg"  # folder of the ablation
PLANNER = TrialSettings(planner="cem")
"""Who plans."""


class Findings(NamedTuple):
    """What a trained model turned out to know and to do.

    Attributes:
        run: the model.
        studied: probes and a map.
        spread: standard deviation of a coordinate of unseen embeddings, on average.
        result: of the pairs.
        losses: prediction and regularizer in the last stretch of the training.
    """

    run: Run
    studied: StudyReport
    spread: float
    result: Result
    losses: tuple[float, float]


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
            _check(settings)
            with clock.phase("collect", f"{settings.episodes} episodes to learn from, "
                             f"{settings.held_out} for probes and goals"):  # fmt: skip
                material = gather(settings)
            write_json(settings.model_dump(mode="json"), out / _SETTINGS)
            found = _learn(settings, material, out, clock)
            with clock.phase("pictures", "curves, map and film"):
                pictures = _draw(found, material, out)
            report = _report(settings, material, found)
            if settings.ablate:
                with clock.phase("ablation", "the same without SIGReg, λ = 0"):
                    without = settings.model_copy(update={"weight": 0.0})
                    other = _learn(without, material, out / _WITHOUT, Clock())
                report["ablation"] = {
                    "weight": 0.0,
                    **_rates(material, other.result),
                    **_knowledge(other),
                    "embedding_std": float(f"{other.spread:.3g}"),
                }
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


def _check(settings: DemoSettings) -> None:
    """Refuse to continue a demo of other settings.

    Raises: ValueError naming what differs, or demo.json if it is damaged.
    """
    path = settings.out / _SETTINGS
    if not settings.resume:
        return
    try:
        before = complete(DemoSettings, "demo", read_settings(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if changed := settings.changed(before):
        raise ValueError(f"--resume must keep the run's settings, got {', '.join(changed)}")


def _learn(settings: DemoSettings, material: DemoMaterial, out: Path, clock: Clock) -> Findings:
    """Train, study and evaluate one model, by the functions of the commands."""
    device = device_of(settings.device)
    with clock.phase("train", f"{settings.steps} steps of {settings.batch_size} windows"):
        own = {"dim": settings.dim}
        told = complete(
            TrainSettings,
            "train",
            settings.common(TrainSettings),
            {
                "data": BUILT_IN,
                "world": BUILT_IN,
                "out": out,
                "resume": settings.resume,
                "device": device,
                "workers": 0,
                "held_out": settings.held_out / (settings.held_out + settings.episodes),
                "checkpoint_every": 100,
                "model": {"encoder": own, "action_encoder": own, "predictor": own},
            },
        )
        parts = cut(told, every(material.seen), every(material.unseen))
        train(begin(told, parts, Ranks(device=device)))
    run = open_run(out, device)
    with clock.phase("probe", "where the agent is, read from the embedding; a map of it"):
        seen, unseen = (
            walked(run, material.world, walks_of(episodes, settings.held_out))
            for episodes in (material.seen, material.unseen)
        )
        shown = StudyMaterial(seen, unseen, material.world, ["x", "y"], "the demo's own", [])
        seed = seed_for(settings, "probe")
        studied = study(run, shown, parts=("probes", "map"), seed=seed)
    with clock.phase("plan", f"{settings.pairs} pairs, {settings.budget} steps each"):
        result = evaluate(run, material.manifest, PLANNER, world=material.world, title="plan")
    table = read_table(out / "curves.csv")
    return Findings(
        run,
        studied,
        float(unseen.z.flatten(0, 1).std(0).mean()),
        result,
        (table["prediction"][-1], table["regularization"][-1]),
    )


def _draw(found: Findings, material: DemoMaterial, out: Path) -> dict[str, Any]:
    """What the page shows, by title."""
    drawn: dict[str, Any] = {"Plans in motion": out / "episodes.gif"}
    # Three across the wall, three within a room, the first drawn of each: none is picked.
    crosses = _crossing(material)
    chosen = np.concatenate([np.flatnonzero(crosses)[:3], np.flatnonzero(~crosses)[:3]])
    policy = PlannerPolicy(
        found.run.world_model, found.run.scale, frameskip=found.run.frameskip, planner=PLANNER
    )
    film = film_of(material.world, material.manifest, policy, chosen)
    film = film._replace(names=[""] * len(chosen), expected=None, decided=None)
    write_film(film, TwoRoom(160), drawn["Plans in motion"], across=2)
    part = found.studied.parts["map"]
    if isinstance(part, LatentMap):
        drawn["The latent space"] = part
        save_chart(latent_map(part)[0], out / "latent.png")
    tables = (read_table(out / name) for name in ("curves.csv", "held_out.csv"))
    drawn["Its training"] = training_curves(*tables, floor=noise_floor())
    save_chart(drawn["Its training"], out / "curves.png")
    return drawn


def _report(settings: DemoSettings, material: DemoMaterial, found: Findings) -> dict[str, Any]:
    """What `report.json` holds."""
    manifest, world = material.manifest, material.world
    distance = world.distance(manifest.starts, manifest.goals) / world.success_radius
    return {
        **_rates(material, found.result),
        "random_success_rate": found.result.random_success_rate,
        "episodes": found.result.pairs,
        "pairs_dropped_as_solved": manifest.dropped_as_solved,
        "cross_room_fraction": _rate(_crossing(material)),
        "mean_start_goal_distance": round(float(distance.mean()), 3),
        "mean_steps_to_goal": found.result.mean_steps_to_goal,
        **_knowledge(found),
        "sigreg_floor": round(noise_floor(), 4),
        "seed": settings.seed,
        "config": settings.model_dump(mode="json"),
        "versions": versions(),
        "git_commit": commit(),
        "machine": machine(device_of(settings.device)),
    }


def _rates(material: DemoMaterial, result: Result) -> dict[str, Any]:
    """Success over all pairs with its interval, and on either side of the wall."""
    crosses = _crossing(material)
    return {
        "success_rate": result.success_rate,
        "success_interval": list(result.success_interval),
        "same_room_success_rate": _rate(result.reached[~crosses]),
        "cross_room_success_rate": _rate(result.reached[crosses]),
    }


def _knowledge(found: Findings) -> dict[str, Any]:
    """What probes read, and the losses it came from."""
    part = found.studied.parts["probes"]
    if not isinstance(part, Probes):
        raise ValueError(f"held_out must leave enough to probe: {part}")
    return {
        "probe_r2": {
            "linear": {q.name: round(q.linear.r2.value, 4) for q in part.quantities},
            "mlp": {q.name: round(q.mlp.r2.value, 4) for q in part.quantities},
        },
        "pred_loss": float(f"{found.losses[0]:.4g}"),
        "sigreg": float(f"{found.losses[1]:.4g}"),
    }


def _crossing(material: DemoMaterial) -> NDArray[np.bool_]:
    """Which pairs lie across the wall."""
    room = material.world.room
    out: NDArray[np.bool_] = room(material.manifest.starts) != room(material.manifest.goals)
    return out


def _rate(flags: NDArray[np.bool_]) -> float | None:
    """Share of true ones, or None of nothing."""
    return round(float(flags.mean()), 4) if len(flags) else None
