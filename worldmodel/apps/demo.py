"""`worldmodel demo`: train an agent that plans in latent space, in minutes.

It collects episodes of a noisy walker in Two-Room, trains a world model on their pixels with the
two-term loss, studies the model, plans to goals of held-out episodes, and writes a report.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sigreg import noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps.data.collecting import fresh_walks
from worldmodel.apps.evaluate.films import film_of, write_film
from worldmodel.apps.evaluate.manifest import Manifest, make_manifest
from worldmodel.apps.evaluate.policies import policy_of
from worldmodel.apps.evaluate.trial import evaluate
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import device_of, provenance
from worldmodel.apps.parsing import check_kept, complete, kept_settings
from worldmodel.apps.progress import say
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.report import latent_map, render, save_chart, training_curves, write_index
from worldmodel.apps.runs import METRIC, Run, open_run
from worldmodel.apps.settings import BUILT_IN, DemoSettings, TrainSettings, TrialSettings
from worldmodel.apps.study.command import sequences, study
from worldmodel.apps.study.measures import Found, StudyMaterial
from worldmodel.apps.train.command import CHECKPOINTS, train
from worldmodel.apps.train.material import cut
from worldmodel.apps.train.reports import read_table
from worldmodel.data import Episodes, episode_digests
from worldmodel.worlds import TwoRoom

# It imagines fewer blocks than the default planner. One frame of Two-Room shows the whole state.
PLANNER = TrialSettings(planner="icem", horizon=7, iterations=4, history=1, cost="mean")
_SETTINGS, _REPORT = "demo.json", "report.json"
_WITHOUT = "without-sigreg"  # folder of the ablation
_PURPOSES = ("train", "held out", "pairs", "random policy", "planner", "probe")


class DemoMaterial(NamedTuple):
    """Training episodes, held-out episodes and pairs of a demo."""

    world: TwoRoom  #: at the size the model sees
    seen: Episodes  #: for training; with `bump`, their walkers sometimes walk into the wall
    unseen: Episodes  #: for probes, starts and goals; their walkers never walk into the wall
    manifest: Manifest  #: pairs from the unseen episodes
    crosses: NDArray[np.bool_]  #: [N], whether start and goal are in different rooms


def run(settings: DemoSettings) -> int:
    """Run the whole pipeline and write a run folder."""
    out, clock, device = settings.out, dict[str, float](), device_of(settings.device)
    try:
        done = (_REPORT, "index.html")
        with begin_folder(out, _SETTINGS, resume=settings.resume, done=done, worth=CHECKPOINTS):
            if settings.resume:
                check_kept(settings, kept_settings(DemoSettings, "demo", out / _SETTINGS))
            sizes = f"{settings.episodes} training episodes"
            with _phase(clock, "collect", f"{sizes}, {settings.held_out} held-out ones"):
                material = gather(settings)
            write_json(settings.model_dump(mode="json"), out / _SETTINGS)
            trained, figures, points = _learn(settings, material, out, clock)
            with _phase(clock, "pictures", "curves, map and video"):
                shown = _draw(trained, points, material, out)
            manifest, world = material.manifest, material.world
            far = world.distance(manifest.starts, manifest.goals) / world.success_radius
            report = {
                **figures, "episodes": len(far),
                "pairs_dropped_as_solved": manifest.dropped_as_solved,
                "cross_room_fraction": _rate(material.crosses),
                "mean_start_goal_distance": round(float(far.mean()), 3),
                "sigreg_floor": round(noise_floor(), 4), "seed": settings.seed,
                "config": settings.model_dump(mode="json"),
                **provenance(device),
            }  # fmt: skip
            if settings.ablate:
                with _phase(clock, "ablation", "the same without SIGReg, λ = 0"):
                    (out / _WITHOUT).mkdir(exist_ok=True)
                    without = settings.model_copy(update={"weight": 0.0})
                    _, other, _ = _learn(without, material, out / _WITHOUT, {})
                report["ablation"] = {"weight": 0.0, **other}
            report["wall_seconds"] = clock | {"total": round(sum(clock.values()), 2)}
            page = render("demo.html", report=report, **shown)
            write_atomically(out / "demo.html", page.encode())
            write_json(report, out / _REPORT)
            write_index(out)
    except KeyboardInterrupt:
        words = ["worldmodel", "demo", "--resume", *(["--ablate"] if settings.ablate else [])]
        again = shlex.join([*words, "--out", str(out)])
        say(f"\ninterrupted; continue with: {again}" if out.exists() else "\nnothing was kept")
        raise
    say(render("demo.txt", report=report, out=out))
    say(f"see it plan in your browser: {shlex.join(['worldmodel', 'view', str(out)])}")
    return 0


@contextmanager
def _phase(seconds: dict[str, float], name: str, about: str) -> Iterator[None]:
    """Add up the seconds of a block by its name, and print a line when it begins and ends."""
    say(f"{name}: {about}")
    began = time.perf_counter()
    yield
    took = time.perf_counter() - began
    seconds[name] = round(seconds.get(name, 0) + took, 2)
    say(f"{name} took {took:.0f} s")


def seed_for(settings: DemoSettings, purpose: str) -> int:
    """A seed per purpose; no two purposes, and no two values of --seed, share one."""
    return (settings.seed * len(_PURPOSES) + _PURPOSES.index(purpose)) % 2**63


def collected(settings: DemoSettings, num: int, seed: int, *, bump: float = 0.0) -> Episodes:
    """Episodes of Two-Room's noisy expert, as `data collect` writes them, in memory."""
    world = TwoRoom(settings.image_size)
    return fresh_walks(world, num, settings.length, seed, bump=bump).in_memory()


def gather(settings: DemoSettings) -> DemoMaterial:
    """Collect the episodes, draw them, and choose the pairs.

    Raises: ValueError if the episodes are too short for the pairs.
    """
    world = TwoRoom(settings.image_size)
    seen = collected(settings, settings.episodes, seed_for(settings, "train"), bump=settings.bump)
    unseen = collected(settings, settings.held_out, seed_for(settings, "held out"))
    assert unseen.states is not None
    states = list(unseen.states.unflatten(0, (settings.held_out, -1)).numpy())
    manifest = make_manifest(
        world, states, episode_digests(unseen), num=settings.pairs, offset=settings.offset,
        budget=settings.budget, seed=seed_for(settings, "pairs"), env=BUILT_IN,
        source=f"{settings.held_out} episodes that the demo collected",
    )  # fmt: skip
    crosses = world.room(manifest.starts) != world.room(manifest.goals)
    return DemoMaterial(world, seen, unseen, manifest, crosses)


def _learn(
    settings: DemoSettings, material: DemoMaterial, out: Path, clock: dict[str, float]
) -> tuple[Run, dict[str, object], Found]:
    """Train, study and evaluate one model, with the functions of the commands.

    Returns: its run, its entries of report.json, and a map of its embeddings.
    """
    device, world = device_of(settings.device), material.world
    with _phase(clock, "train", f"{settings.steps} steps of {settings.batch_size} windows"):
        own = {"dim": settings.dim}
        named = {
            "data": BUILT_IN, "world": BUILT_IN, "out": out, "resume": settings.resume,
            "device": device, "workers": 0, "checkpoint_every": 100,
            "held_out": settings.held_out / (settings.held_out + settings.episodes),
            "model": {"encoder": own, "action_encoder": own, "predictor": own},
        }  # fmt: skip
        told = complete(TrainSettings, "train", settings.common(TrainSettings), named)
        parts = cut(told, *((e, torch.arange(len(e))) for e in (material.seen, material.unseen)))
        train(told, parts, Ranks(device=device))
    run = open_run(out, device)
    with _phase(clock, "probe", "probes of the position, and a map of the embeddings"):
        seen, unseen = (
            sequences(run, found, torch.arange(min(settings.held_out, len(found))))
            for found in (material.seen, material.unseen)
        )
        whole = StudyMaterial(seen, unseen, world, ["x", "y"], "the demo's own", [])
        studied = study(run, whole, parts=("probes", "map"), seed=seed_for(settings, "probe"))
    with _phase(clock, "plan", f"{settings.pairs} pairs, {settings.budget} steps each"):
        result = evaluate(run, material.manifest, planner_of(run), world=world, title="plan")
    probes, losses = studied.parts["probes"], read_table(out / "curves.csv")
    if "unavailable" in vars(probes):
        raise ValueError(f"held_out must leave enough episodes to probe: {probes.unavailable}")
    figures = {
        "success_rate": result.success_rate, "success_interval": result.success_interval,
        "same_room_success_rate": _rate(result.reached[~material.crosses]),
        "cross_room_success_rate": _rate(result.reached[material.crosses]),
        "probe_r2": {
            kind: {q.name: round(getattr(q, kind).r2.value, 4) for q in probes.quantities}
            for kind in ("linear", "mlp")
        },
        "pred_loss": float(f"{losses['prediction'][-1]:.4g}"),
        "sigreg": float(f"{losses['regularization'][-1]:.4g}"),
        "embedding_std": float(f"{float(unseen.z.flatten(0, 1).std(0).mean()):.3g}"),
        "random_success_rate": result.random_success_rate,
        "mean_steps_to_goal": result.mean_steps_to_goal,
        "planner": result.fingerprint.planner,
    }  # fmt: skip
    return run, figures, studied.parts["map"]


def planner_of(run: Run) -> TrialSettings:
    """The planner with distances in units of a block, if the run's embeddings change at all."""
    metric = "mahalanobis" if (run.folder / METRIC).exists() else "euclidean"
    return PLANNER.model_copy(update={"metric": metric})


def _draw(run: Run, points: Found, material: DemoMaterial, out: Path) -> dict[str, object]:
    # The first three pairs across the wall and the first three within a room; none is picked.
    some = [np.flatnonzero(flags)[:3] for flags in (material.crosses, ~material.crosses)]
    policy = policy_of(run, material.world, planner_of(run))
    film = film_of(material.world, material.manifest, policy, np.concatenate(some))
    film = film._replace(names=[""] * len(film.names), expected=None)
    write_film(film, TwoRoom(160), out / "episodes.gif", across=2)
    tables = (read_table(out / name) for name in ("curves.csv", "held_out.csv"))
    curves = training_curves(*tables, floor=noise_floor())
    save_chart(curves, out / "curves.png")
    if part := getattr(points, "shown", None):
        save_chart(latent_map(part)[0], out / "latent.png")
    return {"film": out / "episodes.gif", "map": part, "curves": curves}


def _rate(flags: NDArray[np.bool_]) -> float | None:
    return round(float(flags.mean()), 4) if len(flags) else None
