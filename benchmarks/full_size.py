"""LeWM at its published size in one world, in slices: what the gpu_<world>.py scripts share.

Everything is made on the spot from seeds: episodes are simulated and kept as states, frames are
drawn by worker processes while the model learns. A slice does what it can within --minutes and
leaves its state in --runs; the same command goes on. `results/<name>.json` holds the learning curve
so far after every slice, and the score on the manifest after the last.

    python benchmarks/gpu_push_t.py                one slice
    python benchmarks/gpu_push_t.py --slices 20    one after another
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from worldmodel import presets
from worldmodel._files import write_atomically
from worldmodel.apps.data.collecting import episodes as simulate
from worldmodel.apps.evaluate import evaluate, make_manifest, read_manifest, write_manifest
from worldmodel.apps.parsing import preset
from worldmodel.apps.runs import open_run, save_run
from worldmodel.apps.settings import Recipe, TrialSettings
from worldmodel.apps.train.loop import Training
from worldmodel.data import ActionScale, Episodes, Windows, action_digest, episode_digests
from worldmodel.worlds import open_world
from worldmodel.worlds.rendered import RenderedFrames

MANIFESTS = Path(__file__).resolve().parent / "manifests"
UNSEEN = 2**20  # seed of the manifests' episodes; the training data have seed 0
FRAMESKIP, FRAMES = 5, 4
PUBLISHED = TrialSettings(**preset("evaluate", "preset", "published"))


@dataclass(frozen=True)
class Task:
    """One world at full size.

    Attributes:
        world: its name.
        policy: who collects.
        episodes: how many.
        length: actions in each.
        published: the success rate in the paper's Figure 6, in percent.
        steps: optimizer steps.
        image_size: side of the frames.
        preset: "lewm", or "small" to try the script out.
        curve: steps between two points of the learning curve.
        curve_pairs: pairs tried at each of them.
    """

    world: str
    policy: str
    episodes: int
    length: int
    published: float
    steps: int = 60_000
    image_size: int = 224
    preset: str = "lewm"
    curve: int = 5_000
    curve_pairs: int = 50


class OutOfTimeError(Exception):
    """The slice is over; everything done so far is on disk."""


class Clock:
    """What is left of a slice."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raises: OutOfTimeError when nothing is left."""
        if time.monotonic() > self.end:
            raise OutOfTimeError


class Ahead:
    """Windows whose next batches are drawn by a thread while the model works on this one."""

    def __init__(self, windows: Windows, depth: int = 3) -> None:
        self.windows, self.episodes = windows, windows.episodes
        self.order: Any = None
        self.next, self.stop = -1, threading.Event()
        self.ready: queue.Queue[Any] = queue.Queue(depth)

    def __len__(self) -> int:
        return len(self.windows)

    def follow(self, training: Training) -> None:
        """Draw the batches that `training` will ask for, from the step it is at."""
        self.order, self.step, self.last = training.order, training.step, training.steps
        threading.Thread(target=self._draw, daemon=True).start()

    def batch(self, index: torch.Tensor) -> Any:
        """The batch that was asked for, which is the one that is ready."""
        at, batch = self.ready.get()
        if isinstance(batch, BaseException):
            raise batch
        if not torch.equal(at, index):
            raise ValueError("batches must be asked for in the order of training")
        return batch

    def close(self) -> None:
        """Let the thread end."""
        self.stop.set()

    def _draw(self) -> None:
        for step in range(self.step, self.last):
            index = self.order.batch(step)
            try:
                item: Any = self.windows.batch(index)
            except Exception as error:
                item = error
            while not self.stop.is_set():
                try:
                    self.ready.put((index, item), timeout=1)
                    break
                except queue.Full:
                    continue
            if self.stop.is_set():
                return


def main(task: Task) -> int:
    """Slices of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/full-size"))
    parser.add_argument("--minutes", type=float, default=9.0, help="of a slice")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--manifest", action="store_true", help="only make the manifest")
    parser.add_argument("--try-out", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    if arguments.manifest:
        make_pairs(task)
        return 0
    if arguments.try_out:
        task = replace(
            task, episodes=16, length=40, steps=6, image_size=64, preset="small", curve=3,
            curve_pairs=2,
        )  # fmt: skip
    elif not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    folder = arguments.runs / (task.world + ("-try-out" if arguments.try_out else ""))
    folder.mkdir(parents=True, exist_ok=True)
    done, left = False, arguments.slices
    while left and not done:
        done, left = one_slice(task, folder, arguments.minutes, arguments.try_out), left - 1
        print(f"{task.world}: {'done' if done else 'slice over; the same command goes on'}")
    return 0


def one_slice(task: Task, folder: Path, minutes: float, try_out: bool) -> bool:
    """Work until all is done or the time is up: which of them it was."""
    clock = Clock(minutes)
    try:
        Work(task, folder, clock, save=not try_out).run()
    except OutOfTimeError:
        return False
    return True


class Work:
    """One task on its way: episodes, a training, and what was measured so far."""

    def __init__(self, task: Task, folder: Path, clock: Clock, *, save: bool) -> None:
        self.task, self.folder, self.clock, self.save = task, folder, clock, save
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = True
        data = episodes(task, folder, clock)
        self.digests, self.scale = episode_digests(data), ActionScale.fit(data)
        self.windows = Ahead(
            Windows(data, num_frames=FRAMES, frameskip=FRAMESKIP, scale=self.scale)
        )
        full = task.preset == "lewm"
        recipe = Recipe(
            steps=task.steps,
            batch_size=128 if full else 16,
            precision="bfloat16" if self.device == "cuda" else "float32",
        )
        torch.manual_seed(recipe.seed)
        make = presets.lewm if full else presets.small
        model = make(FRAMESKIP * data.actions.shape[1], image_size=task.image_size)
        self.training = Training(model.to(self.device), self.windows, recipe)
        self.planner = PUBLISHED if full else TrialSettings()
        self.settings = {**asdict(task), **recipe.model_dump(mode="json")}
        self.state, self.records = folder / "training.safetensors", folder / "curve.json"
        self.curve = json.loads(self.records.read_text()) if self.records.exists() else []
        self.recent: list[tuple[float, float]] = []
        if self.state.exists():
            self.training.restore(self.state)

    def run(self) -> None:
        """Train to the end and try the model on the whole manifest."""
        self.windows.follow(self.training)
        steps = self.training.run()
        try:
            for losses in steps:
                self.on_step(self.training.step, losses)
        finally:
            steps.close()
            self.windows.close()
        self.clock.check()
        score = self.measure(self.task.curve_pairs if self.task.preset == "small" else None)
        write_atomically(self.folder / "score.json", json.dumps(score).encode())
        if self.save:
            write_down(self.task, self.settings, self.curve, score)

    def on_step(self, step: int, losses: Any) -> None:
        """Count, measure now and then, and stop when the time is up."""
        self.recent.append((float(losses.prediction), float(losses.regularization)))
        if step % self.task.curve == 0 or step == self.task.steps:
            self.add_point(step)
        if time.monotonic() > self.clock.end:
            self.keep()
            raise OutOfTimeError

    def add_point(self, step: int) -> None:
        """One more point of the learning curve."""
        result = self.measure(self.task.curve_pairs)
        pred, sigreg = np.mean(self.recent, axis=0).tolist()
        self.recent.clear()
        # A slice that was killed after this point comes here again.
        self.curve = [point for point in self.curve if point["step"] < step]
        self.curve.append({"step": step, "prediction": pred, "sigreg": sigreg, "result": result})
        write_atomically(self.records, json.dumps(self.curve).encode())
        if self.save:
            write_down(self.task, self.settings, self.curve, None)
        print(f"step {step}: prediction {pred:.4f}, success {percent(result)}")

    def keep(self) -> None:
        """State to go on from, and a run folder."""
        self.training.save(self.state)
        save_run(
            self.training.model, self.folder, scale=self.scale, frameskip=FRAMESKIP,
            world=self.task.world, trained_on=self.digests, held_out=(), settings=self.settings,
        )  # fmt: skip

    def measure(self, pairs: int | None) -> dict[str, Any]:
        """The model as it is, on the first pairs of the manifest or on all."""
        self.keep()
        manifest = read_manifest(MANIFESTS / f"{self.task.world}-25.json").take(slice(pairs))
        result = evaluate(open_run(self.folder, self.device), manifest, self.planner)
        return result.model_dump(mode="json", exclude={"outcomes"})


def episodes(task: Task, folder: Path, clock: Clock) -> Episodes:
    """Episodes whose frames are drawn when they are asked for."""
    world = open_world(task.world, image_size=task.image_size)
    states, actions = gather(task, world, folder, clock)
    E, L = states.shape[:2]
    padded = np.full((E, L, actions.shape[-1]), np.nan, np.float32)
    padded[:, :-1] = actions
    return Episodes(
        frames=RenderedFrames(world, states.reshape(E * L, -1)),
        actions=torch.from_numpy(padded.reshape(E * L, -1)),
        lengths=torch.full((E,), L),
    )


def gather(task: Task, world: Any, folder: Path, clock: Clock) -> tuple[Any, Any]:
    """States [E, T + 1, S] and actions [E, T, A], simulated where they are not there yet."""
    together = 256
    for first in range(0, task.episodes, together):
        path = folder / f"states-{first:06d}.npz"
        if path.exists():
            continue
        last = min(first + together, task.episodes)
        found = list(simulate(world, task.policy, last, length=task.length, seed=0, first=first))
        states, actions = (np.stack(part) for part in zip(*found, strict=True))
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, states=states, actions=actions)
        partial.rename(path)
        print(f"simulated {last} of {task.episodes} episodes")
        clock.check()
    parts = [
        np.load(folder / f"states-{first:06d}.npz") for first in range(0, task.episodes, together)
    ]
    return tuple(np.concatenate([part[name] for part in parts]) for name in ("states", "actions"))


def make_pairs(task: Task, pairs: int = 200) -> None:
    """The manifest of 200 pairs, from episodes of a seed that nothing is trained on."""
    world = open_world(task.world)
    num = 64
    found = list(simulate(world, task.policy, num, length=task.length, seed=UNSEEN))
    manifest = make_manifest(
        world,
        [states for states, _ in found],
        [action_digest(actions) for _, actions in found],
        num=pairs,
        offset=25,
        budget=50,
        seed=0,
        source=f"{num} episodes of the policy {task.policy}, {task.length} actions, seed {UNSEEN}",
    )
    write_manifest(manifest, MANIFESTS / f"{task.world}-25.json")
    print(f"{manifest.dropped_as_solved} drawn pairs were solved already")


def write_down(
    task: Task, settings: dict[str, Any], curve: list[dict[str, Any]], score: Any
) -> None:
    """The result file: the curve so far, the score if there is one."""
    rows = [
        (f"{point['step']:,}", f"{point['prediction']:.4f}", percent(point["result"]))
        for point in curve
    ]
    rows.append((f"{task.steps:,}, all pairs", "", percent(score) if score else "not run"))
    harness.save(
        f"gpu_{task.world.replace('-', '_')}",
        f"LeWM at its published size in {task.world}, trained on {task.episodes:,} episodes of the "
        f"policy {task.policy}",
        [{"settings": settings, "curve": curve, "score": score}],
        columns=("optimizer steps", "prediction loss", "success, 95 % interval"),
        rows=rows,
        note=(
            f"Published: {task.published:g} %, on other data, 50 pairs of training rows, any time."
        ),
    )


def percent(result: dict[str, Any]) -> str:
    """A rate with its interval and the floors below it."""
    low, high = result["success_interval"]
    return (
        f"{result['success_rate']:.1%} ({low:.0%}–{high:.0%}); "
        f"random {result['random_success_rate']:.0%}, idle {result['noop_success_rate']:.0%}"
    )
