"""The main job: from nothing to an agent that plans in latent space, in minutes.

Collect episodes of a noisy walker in Two-Room, train a world model on their pixels by the two-term
loss, plan to goals of unseen episodes, and write down what came of it.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sigreg import noise_floor, trapezoid
from worldmodel import checkpoint, presets
from worldmodel.apps.evaluate import (
    Outcome,
    Pairs,
    PlannerPolicy,
    RandomPolicy,
    attempt,
    make_pairs,
    wilson,
)
from worldmodel.apps.pictures import episodes_gif, latent_map, training_curves
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.train import TrainConfig, Training
from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.model import WorldModel
from worldmodel.records import Losses
from worldmodel.study import principal_components, probe
from worldmodel.worlds import TwoRoom, Walks, collect

__all__ = ["DemoConfig", "run_demo"]

_SEEDS = {"train": 0, "held out": 1, "pairs": 2, "random policy": 3, "planner": 4, "probe": 5}


@dataclass(frozen=True)
class DemoConfig:
    """What a demo run is made of; the command line sets some of it.

    Attributes:
        seed: from which every other seed follows.
        steps: optimizer steps.
        episodes: collected for training.
        length: actions per episode.
        bump: how often a training walker ignores the wall; held-out walkers never do.
        held_out: episodes collected for probes, starts and goals.
        pairs: start and goal pairs to evaluate.
        offset: raw steps between a start and its goal in the held-out episode.
        budget: raw steps the agent may take.
        frameskip: raw actions per block.
        image_size: frame side in pixels.
        dim: embedding width.
        batch_size: windows per step.
        learning_rate: peak.
        weight: λ.
        warmup: fraction of steps.
        num_proj: directions of SIGReg.
        device: where model and planner live.
    """

    seed: int = 0
    steps: int = 600
    episodes: int = 800
    length: int = 80
    bump: float = 0.4
    held_out: int = 200
    pairs: int = 200
    offset: int = 25
    budget: int = 50
    frameskip: int = 5
    image_size: int = 64
    dim: int = 64
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight: float = 0.05
    warmup: float = 0.1
    num_proj: int = 256
    device: str = "cpu"

    def training(self) -> TrainConfig:
        """The part that decides the training run."""
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight=self.weight,
            warmup=self.warmup,
            num_proj=self.num_proj,
            seed=self.seed,
        )


class _Clock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 2)


def run_demo(
    config: DemoConfig, out: Path, *, resume: bool = False, ablate: bool = False
) -> dict[str, Any]:
    """Run the whole pipeline and leave a run folder behind.

    The folder holds `report.json`, `model.safetensors` and `config.json`, `curves.csv` and
    `curves.png`, `latent.png` and `episodes.gif`. An interrupted training leaves
    `training.safetensors`, from which `resume=True` goes on.

    Args:
        config: DemoConfig.
        out: the run folder; must not exist, unless `resume`.
        resume: go on with an interrupted run.
        ablate: train a second model with λ = 0 and report it beside the first.
    Returns: the report.
    Raises: FileExistsError, FileNotFoundError, NonFiniteError; KeyboardInterrupt is passed on
        after the state has been written.
    """
    _open_folder(config, out, resume)
    clock = _Clock()
    world = TwoRoom(config.image_size)
    with clock.phase("collect"):
        walks = collect(
            world, config.episodes, config.length, _seed(config, "train"), bump=config.bump
        )
        unseen = collect(world, config.held_out, config.length, _seed(config, "held out"))
        episodes = _draw(world, walks)
        scale = ActionScale.fit(episodes)
        windows = Windows(episodes, frameskip=config.frameskip, scale=scale)
        pairs = make_pairs(
            world, unseen, config.pairs, offset=config.offset, seed=_seed(config, "pairs")
        )
    say(
        f"collected {config.episodes} episodes, {len(episodes.frames):,} frames of "
        f"{config.image_size} px, and {config.pairs} goals from {config.held_out} unseen ones"
    )
    with clock.phase("train"):
        model = _train(config, windows, out, resume)
    with clock.phase("save"):
        _save_model(model, config, scale, out)
    learned, z, states = _study(config, model, world, walks, unseen, clock)
    outcome, control = _evaluate(config, model, world, pairs, scale, clock)
    with clock.phase("pictures"):
        coordinates, share = principal_components(z)
        latent_map(coordinates.double().numpy(), share.tolist(), states, world, out / "latent.png")
        _draw_curves(out)
        _film(outcome, pairs, out / "episodes.gif")
    report = _report(config, world, pairs, outcome, control, learned, out)
    if ablate:
        with clock.phase("ablation"):
            report["ablation"] = _ablate(config, windows, world, walks, unseen, pairs, scale)
    report["wall_seconds"] = clock.seconds | {"total": round(sum(clock.seconds.values()), 2)}
    _write_json(report, out / "report.json")
    (out / "training.safetensors").unlink(missing_ok=True)
    return report


def _seed(config: DemoConfig, purpose: str) -> int:
    """One seed per purpose: no stream is used twice, and no run shares one with the next."""
    return config.seed * len(_SEEDS) + _SEEDS[purpose]


def _open_folder(config: DemoConfig, out: Path, resume: bool) -> None:
    settings = out / "demo.json"
    if not resume:
        if out.exists():
            unfinished = (out / "training.safetensors").exists()
            remedy = "add --resume to go on with it, or " if unfinished else ""
            raise FileExistsError(
                f"--out must not exist yet, got {out}: {remedy}choose another folder"
            )
        try:
            out.mkdir(parents=True)
            _write_json(asdict(config), settings)
        except OSError as error:
            raise OSError(
                f"--out must be a folder that can be made, got {out}: {error.strerror}"
            ) from error
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


def _draw(world: TwoRoom, walks: Walks) -> Episodes:
    """Walks to episodes of frames."""
    num, length = walks.states.shape[:2]
    states = walks.states.reshape(-1, 2)
    nowhere = np.full((num, 1, 2), np.nan, np.float32)
    actions = np.concatenate([walks.actions, nowhere], axis=1).reshape(-1, 2)
    return Episodes(
        frames=torch.from_numpy(world.render(states)),
        actions=torch.from_numpy(actions),
        lengths=torch.full((num,), length),
        states=torch.from_numpy(states),
    )


def _train(config: DemoConfig, windows: Windows, out: Path, resume: bool) -> WorldModel:
    torch.manual_seed(config.seed)
    model = presets.small(2 * config.frameskip, image_size=config.image_size, dim=config.dim).to(
        config.device
    )
    training = Training(model, windows, config.training(), config.device)
    state, curves = out / "training.safetensors", out / "curves.csv"
    if resume and state.is_file():
        training.restore(state)
        say(f"resumed at step {training.step} of {config.steps}")
    _start_curves(curves, training.step)
    every = max(config.steps // 200, 1)
    recent: list[tuple[float, float]] = []
    with curves.open("a") as table, Progress("train", config.steps, start=training.step) as bar:

        def on_step(step: int, losses: Losses) -> None:
            recent.append((float(losses.prediction), float(losses.regularization)))
            if step % every == 0 or step == config.steps:
                prediction, regularization = np.mean(recent, axis=0)
                table.write(f"{step},{prediction:.6g},{regularization:.6g}\n")
                recent.clear()
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        try:
            training.run(on_step)
        except KeyboardInterrupt:
            training.save(state)
            raise
    training.save(state)
    return model.eval()


def _start_curves(path: Path, step: int) -> None:
    """Keep the rows up to `step`, or begin the table."""
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    kept = [row for row in rows if int(row.split(",")[0]) <= step]
    path.write_text("\n".join(["step,prediction,sigreg", *kept]) + "\n")


def _curves(out: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.loadtxt(out / "curves.csv", delimiter=",", skiprows=1, ndmin=2)


def _draw_curves(out: Path) -> None:
    steps, prediction, regularization = _curves(out).T
    training_curves(steps, prediction, regularization, _floor(), out / "curves.png")


def _floor() -> float:
    return float(noise_floor(trapezoid()))


@torch.no_grad()
def _embed(
    config: DemoConfig, model: WorldModel, world: TwoRoom, walks: Walks, every: int
) -> tuple[Tensor, np.ndarray[Any, np.dtype[np.float32]]]:
    """Embeddings and states of every `every`-th observation."""
    states = walks.states[:, ::every].reshape(-1, 2)
    frames = torch.from_numpy(world.render(states))
    parts = [
        model.encode(part[:, None].to(config.device))[:, 0].cpu() for part in frames.split(512)
    ]
    return torch.cat(parts), states


def _study(
    config: DemoConfig,
    model: WorldModel,
    world: TwoRoom,
    walks: Walks,
    unseen: Walks,
    clock: _Clock,
) -> tuple[dict[str, Any], Tensor, Any]:
    with clock.phase("probe"):
        few = Walks(walks.states[: config.held_out], walks.actions[: config.held_out])
        train_z, train_states = _embed(config, model, world, few, every=4)
        z, states = _embed(config, model, world, unseen, every=8)
        found = probe(
            train_z,
            torch.from_numpy(train_states),
            z,
            torch.from_numpy(states),
            seed=_seed(config, "probe"),
        )
    axes = ("x", "y")
    return (
        {
            "linear": dict(zip(axes, _rounded(found.linear), strict=True)),
            "mlp": dict(zip(axes, _rounded(found.mlp), strict=True)),
        },
        z,
        states,
    )


def _evaluate(
    config: DemoConfig,
    model: WorldModel,
    world: TwoRoom,
    pairs: Pairs,
    scale: ActionScale,
    clock: _Clock,
) -> tuple[Outcome, Outcome]:
    with clock.phase("plan"), Progress("plan", config.budget) as bar:
        planner = PlannerPolicy(
            model,
            world,
            pairs.goals,
            scale,
            frameskip=config.frameskip,
            seed=_seed(config, "planner"),
            device=config.device,
        )
        outcome = attempt(world, pairs, planner, budget=config.budget, on_steps=bar.update)
    control = attempt(
        world, pairs, RandomPolicy(_seed(config, "random policy")), budget=config.budget
    )
    return outcome, control


def _film(outcome: Outcome, pairs: Pairs, path: Path) -> None:
    """Six episodes: three across the wall, three within a room, as drawn; none is picked."""
    world = TwoRoom()
    crosses = world.room(pairs.starts) != world.room(pairs.goals)
    chosen = np.concatenate([np.flatnonzero(crosses)[:3], np.flatnonzero(~crosses)[:3]])
    episodes_gif(
        outcome.paths[chosen],
        pairs.goals[chosen],
        outcome.success[chosen],
        outcome.steps[chosen],
        path,
    )


def _report(
    config: DemoConfig,
    world: TwoRoom,
    pairs: Pairs,
    outcome: Outcome,
    control: Outcome,
    learned: dict[str, Any],
    out: Path,
) -> dict[str, Any]:
    distance = world.distance(pairs.starts, pairs.goals) / world.success_radius
    last = _curves(out)[-1]
    return {
        **_rates(world, pairs, outcome),
        "random_success_rate": _rate(control.success),
        "episodes": len(pairs.starts),
        "pairs_dropped_as_solved": pairs.dropped,
        "cross_room_fraction": _rate(world.room(pairs.starts) != world.room(pairs.goals)),
        "mean_start_goal_distance": round(float(distance.mean()), 3),
        "mean_steps_to_goal": _mean(outcome.steps[outcome.success]),
        "probe_r2": learned,
        "pred_loss": float(f"{last[1]:.4g}"),
        "sigreg": float(f"{last[2]:.4g}"),
        "sigreg_floor": round(_floor(), 4),
        "seed": config.seed,
        "config": asdict(config),
        "versions": _versions(),
        "git_commit": _commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {config.device}",
    }


def _ablate(
    config: DemoConfig,
    windows: Windows,
    world: TwoRoom,
    walks: Walks,
    unseen: Walks,
    pairs: Pairs,
    scale: ActionScale,
) -> dict[str, Any]:
    """The same run with λ = 0: what the regularizer is worth."""
    say("once more without SIGReg, λ = 0")
    without = replace(config, weight=0.0)
    torch.manual_seed(without.seed)
    model = presets.small(2 * config.frameskip, image_size=config.image_size, dim=config.dim).to(
        config.device
    )
    training = Training(model, windows, without.training(), config.device)
    last: list[Losses] = []
    with Progress("train, λ = 0", config.steps) as bar:

        def on_step(step: int, losses: Losses) -> None:
            del step
            last[:] = [losses]
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))

        training.run(on_step)
    model.eval()
    clock = _Clock()
    learned, z, _ = _study(without, model, world, walks, unseen, clock)
    outcome, _ = _evaluate(without, model, world, pairs, scale, clock)
    return {
        "weight": 0.0,
        **_rates(world, pairs, outcome),
        "probe_r2": learned,
        "pred_loss": float(f"{float(last[0].prediction):.4g}"),
        "sigreg": float(f"{float(last[0].regularization):.4g}"),
        "embedding_std": float(f"{float(z.std(0).mean()):.3g}"),
    }


def _save_model(model: WorldModel, config: DemoConfig, scale: ActionScale, out: Path) -> None:
    checkpoint.save(
        model,
        out,
        action_scale=scale,
        extra={"world": "two-room", "frameskip": config.frameskip, "demo": asdict(config)},
    )


def _rates(world: TwoRoom, pairs: Pairs, outcome: Outcome) -> dict[str, Any]:
    success = outcome.success
    crosses = world.room(pairs.starts) != world.room(pairs.goals)
    return {
        "success_rate": _rate(success),
        "success_interval": [round(b, 4) for b in wilson(int(success.sum()), len(success))],
        "same_room_success_rate": _rate(success[~crosses]),
        "cross_room_success_rate": _rate(success[crosses]),
    }


def _rate(flags: Any) -> float | None:
    return round(float(flags.mean()), 4) if len(flags) else None


def _mean(values: Any) -> float | None:
    return round(float(values.mean()), 2) if len(values) else None


def _rounded(values: Tensor) -> list[float]:
    return [round(v, 4) for v in values.tolist()]


def _versions() -> dict[str, str]:
    try:
        own = version("sigreg")
    except PackageNotFoundError:
        own = "not installed"
    return {"sigreg": own, "torch": torch.__version__, "python": platform.python_version()}


def _commit() -> str | None:
    """Commit of the source tree this file lies in, or None for an installed package."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607 - from the PATH
            capture_output=True, text=True, check=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _write_json(content: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
