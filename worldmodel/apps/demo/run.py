"""The main job: from nothing to an agent that plans in latent space, in minutes.

Collect episodes of a noisy walker in Two-Room, train a world model on their pixels by the two-term
loss, plan to goals of unseen episodes, and write down what came of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel._files import write_atomically
from worldmodel.apps.demo.findings import (
    Knowledge,
    crossing,
    floor,
    learned,
    plan,
    provenance,
    rate,
    rates,
)
from worldmodel.apps.demo.material import DemoConfig, Material, gather, new_training
from worldmodel.apps.evaluate import Outcome, RandomPolicy, attempt
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.report import (
    Film,
    demo_page,
    latent_map,
    save_chart,
    training_curves,
    write_film,
    write_index,
)
from worldmodel.apps.runs import save_run
from worldmodel.apps.train.loop import NonFiniteError
from worldmodel.data import action_digest, episode_digests
from worldmodel.model import WorldModel
from worldmodel.records import Losses
from worldmodel.study import principal_components
from worldmodel.worlds import TwoRoom

__all__ = ["run_demo"]


class _Clock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)


def run_demo(
    config: DemoConfig, out: Path, *, resume: bool = False, ablate: bool = False
) -> dict[str, Any]:
    """Run the whole pipeline and leave a run folder behind.

    The folder holds `report.json`, `model.safetensors` and `config.json`, `curves.csv` and
    `curves.png`, `latent.png` and `episodes.gif`. An interrupted training leaves
    `training.safetensors`, from which `resume=True` goes on; one that diverged leaves its last
    finite state there.

    Args:
        config: DemoConfig.
        out: the run folder; must not exist, unless `resume`.
        resume: go on with an interrupted run.
        ablate: train a second model with λ = 0 and report it beside the first.
    Returns: the report.
    Raises: FileExistsError, FileNotFoundError, NonFiniteError; KeyboardInterrupt is passed on
        after the state has been written.
    """
    _check_folder(config, out, resume)
    clock = _Clock()
    with clock.phase("collect"):
        material = gather(config)
    if not resume:
        _make_folder(config, out)
    say(
        f"collected {config.episodes} episodes, {len(material.windows.episodes.frames):,} frames "
        f"of {config.image_size} px, and {config.pairs} goals from {config.held_out} unseen ones"
    )
    with clock.phase("train"):
        model = _train(config, material, out, resume)
    save_run(
        model,
        out,
        scale=material.scale,
        frameskip=config.frameskip,
        world="two-room",
        trained_on=episode_digests(material.windows.episodes),
        held_out=[action_digest(actions) for actions in material.unseen.actions],
        settings=asdict(config),
    )
    with clock.phase("probe"):
        knowledge = learned(config, material, model)
    with clock.phase("plan"):
        outcome = plan(config, material, model)
        policy = RandomPolicy(np.random.default_rng(config.seed_for("random policy")))
        control = attempt(material.world, material.pairs, policy, budget=config.budget)
    with clock.phase("pictures"):
        pictures = _draw_pictures(material, knowledge, outcome, out)
    report = _report(config, material, knowledge, outcome, control, out)
    if ablate:
        with clock.phase("ablation"):
            report["ablation"] = _ablate(config, material)
    report["wall_seconds"] = clock.seconds | {"total": round(sum(clock.seconds.values()), 2)}
    _write_json(report, out / "report.json")
    write_atomically(out / "demo.html", demo_page(report, pictures).encode())
    write_index(out)
    (out / "training.safetensors").unlink(missing_ok=True)
    return report


def _check_folder(config: DemoConfig, out: Path, resume: bool) -> None:
    settings = out / "demo.json"
    if not resume:
        if out.exists():
            unfinished = (out / "demo.json").exists() and not (out / "report.json").exists()
            remedy = "add --resume to go on with it, or " if unfinished else ""
            raise FileExistsError(
                f"--out must not exist yet, got {out}: {remedy}choose another folder"
            )
        return
    if not settings.is_file():
        raise FileNotFoundError(f"--resume needs a run folder with demo.json, got {out}")
    if (out / "report.json").exists():
        raise FileExistsError(f"--resume needs an unfinished run, got {out} with its report.json")
    try:
        before = json.loads(settings.read_text())
    except ValueError as error:
        raise ValueError(f"{settings} is damaged: {error}") from error
    if before != asdict(config):
        changed = [f"{k} {before.get(k)} → {v}" for k, v in asdict(config).items()
                   if before.get(k) != v]  # fmt: skip
        raise ValueError(f"--resume must keep the run's settings, got {', '.join(changed)}")


def _make_folder(config: DemoConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True)
        _write_json(asdict(config), out / "demo.json")
    except OSError as error:
        raise OSError(
            f"--out must be a folder that can be made, got {out}: {error.strerror}"
        ) from error


def _train(config: DemoConfig, material: Material, out: Path, resume: bool) -> WorldModel:
    training = new_training(config, material.windows)
    state, curves = out / "training.safetensors", out / "curves.csv"
    if resume and state.is_file():
        training.restore(state)
        say(f"resumed at step {training.step} of {config.steps}")
    _start_curves(curves, training.step)
    every = max(config.steps // 200, 1)
    recent: list[tuple[float, float]] = []
    with (
        curves.open("a") as table,
        Progress("train", config.steps, start=training.step) as bar,
    ):

        def on_step(step: int, losses: Losses) -> None:
            recent.append((float(losses.prediction), float(losses.regularization)))
            if step % every == 0 or step == config.steps:
                prediction, regularization = np.mean(recent, axis=0)
                table.write(f"{step},{prediction:.6g},{regularization:.6g}\n")
                recent.clear()
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        try:
            training.run(on_step)
        except (KeyboardInterrupt, NonFiniteError):
            # After a loss that is not finite: the state before the step that had it.
            training.save(state)
            raise
    training.save(state)
    return training.model.eval()


def _start_curves(path: Path, step: int) -> None:
    """Keep the rows up to `step`, or begin the table."""
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    kept = [row for row in rows if int(row.split(",")[0]) <= step]
    path.write_text("\n".join(["step,prediction,sigreg", *kept]) + "\n")


def _curves(out: Path) -> NDArray[np.float64]:
    table: NDArray[np.float64] = np.loadtxt(out / "curves.csv", delimiter=",", skiprows=1, ndmin=2)
    return table


def _draw_pictures(
    material: Material, knowledge: Knowledge, outcome: Outcome, out: Path
) -> dict[str, Any]:
    """What the page shows, by title."""
    # Every third frame: enough to see, and a light page.
    coordinates, share = principal_components(knowledge.z)
    latent = latent_map(coordinates[::3].double().numpy(), share.tolist(), knowledge.states[::3])
    save_chart(latent, out / "latent.png")
    steps, prediction, regularization = _curves(out).T
    table = {"step": steps, "prediction": prediction, "regularization": regularization}
    curves = training_curves(table, floor=floor())
    save_chart(curves, out / "curves.png")
    # Three across the wall, three within a room, the first drawn of each: none is picked.
    crosses = crossing(material)
    chosen = np.concatenate([np.flatnonzero(crosses)[:3], np.flatnonzero(~crosses)[:3]])
    film = Film(
        [""] * len(chosen), outcome.paths[chosen], material.pairs.goals[chosen],
        outcome.success[chosen], outcome.steps[chosen],
    )  # fmt: skip
    write_film(film, TwoRoom(160), out / "episodes.gif", across=2)
    return {
        "Plans in motion": out / "episodes.gif",
        "The latent space": latent,
        "Its training": curves,
    }


def _report(
    config: DemoConfig,
    material: Material,
    knowledge: Knowledge,
    outcome: Outcome,
    control: Outcome,
    out: Path,
) -> dict[str, Any]:
    pairs, world = material.pairs, material.world
    distance = world.distance(pairs.starts, pairs.goals) / world.success_radius
    taken = outcome.steps[outcome.success]
    last = _curves(out)[-1]
    return {
        **rates(material, outcome),
        "random_success_rate": rate(control.success),
        "episodes": len(pairs.starts),
        "pairs_dropped_as_solved": pairs.dropped,
        "cross_room_fraction": rate(crossing(material)),
        "mean_start_goal_distance": round(float(distance.mean()), 3),
        "mean_steps_to_goal": round(float(taken.mean()), 2) if len(taken) else None,
        "probe_r2": knowledge.r2(),
        "pred_loss": float(f"{last[1]:.4g}"),
        "sigreg": float(f"{last[2]:.4g}"),
        "sigreg_floor": round(floor(), 4),
        **provenance(config),
    }


def _ablate(config: DemoConfig, material: Material) -> dict[str, Any]:
    """The same run with λ = 0: what the regularizer is worth."""
    say("once more without SIGReg, λ = 0")
    without = replace(config, weight=0.0)
    training = new_training(without, material.windows)
    last: list[Losses] = []
    with Progress("train, λ = 0", config.steps) as bar:

        def on_step(step: int, losses: Losses) -> None:
            del step
            last[:] = [losses]
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        training.run(on_step)
    model = training.model.eval()
    knowledge = learned(without, material, model)
    return {
        "weight": 0.0,
        **rates(material, plan(without, material, model)),
        "probe_r2": knowledge.r2(),
        "pred_loss": float(f"{float(last[0].prediction):.4g}"),
        "sigreg": float(f"{float(last[0].regularization):.4g}"),
        "embedding_std": float(f"{float(knowledge.z.std(0).mean()):.3g}"),
    }


def _write_json(content: dict[str, Any], path: Path) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
