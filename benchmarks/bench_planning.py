"""How long does one LeWM plan take: 300 candidates, 30 iterations, horizon 5, block 5?

Against the official solver and model where stable_worldmodel can be imported, and otherwise
against `plain_plan`, the same rule in a few lines. Both are the later published version: start and
goal are encoded once per plan, actions once per iteration, and the predictor sees the whole window
at every step.

    python benchmarks/bench_planning.py                one plan, float32 and lower precision
    python benchmarks/bench_planning.py batch          50 problems at once, or one after another
    python benchmarks/bench_planning.py small          the demo's model, one call of its cost
    python benchmarks/bench_planning.py work           the first two in processor time, one thread:
                                                       usable on a machine with other work
    python benchmarks/bench_planning.py precision      elites that stay in lower precision while CEM
                                                       converges, and the time of a cost
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor, nn

from planners import CEM, ICEM, optimize
from worldmodel import WorldModel, from_pretrained, goal_cost, presets
from worldmodel.worlds import open_world

SAMPLES, ELITES, ITERATIONS, HORIZON, A = 300, 30, 30, 5, 10


def trained_like(model: WorldModel) -> WorldModel:
    """Open the gates: a new block is the identity, and a check of it would show nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modulation" in name:
                parameter.normal_(0, 0.05)
    return model.eval()


@torch.inference_mode()
def plain_plan(model: WorldModel, frames: Tensor, goal: Tensor, iterations: int) -> Tensor:
    """The official rule: CEM from N(0, 1), candidate 0 the mean, plain rollout, last mean."""
    generator = torch.Generator(frames.device).manual_seed(1234)
    z, z_goal = model.encode(frames), model.encode(goal[:, None])
    mean = torch.zeros(1, HORIZON, A, device=frames.device)
    std = torch.ones_like(mean)
    for _ in range(iterations):
        shape = (SAMPLES, HORIZON, A)
        candidates = torch.randn(shape, generator=generator, device=frames.device) * std + mean
        candidates[0] = mean[0]
        predicted = model.rollout(z.expand(SAMPLES, -1, -1), candidates)
        costs = (predicted[:, -1] - z_goal[0]).square().sum(-1)
        values, best = costs.topk(ELITES, largest=False)
        mean, std = candidates[best].mean(0, keepdim=True), candidates[best].std(0, keepdim=True)
        values.mean().item()
    return mean


def our_plan(
    model: WorldModel, frames: Tensor, goal: Tensor, iterations: int, **options: Any
) -> Tensor:
    """The same by `goal_cost` and `optimize`, encoding included."""
    cost = goal_cost(model, frames, goal, **options)
    start = torch.zeros(len(frames), HORIZON, A, device=frames.device)
    method = CEM(num_samples=SAMPLES, num_elites=ELITES)
    return optimize(method, cost, start, iterations=iterations).actions


def official(device: str = "cpu") -> tuple[Callable[..., Any], Any, str] | None:
    """The real solver and model, filled with weights of its own; None where not installed."""
    if importlib.util.find_spec("stable_worldmodel") is None:
        return None
    import parity

    library = parity.declare_torchvision()
    import gymnasium
    import numpy as np
    from hydra.utils import instantiate
    from stable_worldmodel.solver import CEMSolver

    parity.kept = library
    model = instantiate(json.loads((parity.GOLDEN / "lewm" / "config.json").read_text())).eval()
    keys = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(parity.hashed.state_dict(keys))
    model.to(device).requires_grad_(False)
    mean = torch.tensor(parity.MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(parity.STD, device=device).view(3, 1, 1)

    def plan(frames: Tensor, goal: Tensor, iterations: int) -> Tensor:
        solver = CEMSolver(
            model=model, num_samples=SAMPLES, n_steps=iterations, topk=ELITES, device=device
        )
        box = gymnasium.spaces.Box(-np.inf, np.inf, (1, 2))
        solver.configure(
            action_space=box,
            n_envs=1,
            config=types.SimpleNamespace(horizon=HORIZON, action_block=5),
        )
        info = {"pixels": (frames - mean) / std, "goal": (goal[:, None] - mean) / std}
        info["action"] = torch.zeros(1, 1, A, device=device)
        with contextlib.redirect_stdout(io.StringIO()):
            return solver.solve(info)["actions"]

    name = f"stable_worldmodel {importlib.metadata.version('stable-worldmodel')}"
    return plan, model, name


def published_twin(model: Any) -> WorldModel:
    """Our model with the official model's weights."""
    import tempfile

    import parity

    from worldmodel.published import from_published

    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pt")
        config = (parity.GOLDEN / "lewm" / "config.json").read_text()
        (Path(folder) / "config.json").write_text(config)
        return from_published(folder)


def bench_plan(rounds: int, iterations: int) -> None:
    """One plan at the paper's settings."""
    real = official()
    model = published_twin(real[1]) if real else trained_like(presets.lewm())
    frames, goal = torch.rand(1, 1, 3, 224, 224), torch.rand(1, 3, 224, 224)
    calls = {"plain": lambda: plain_plan(model, frames, goal, iterations)}
    if real:
        calls["official"] = lambda: real[0](frames, goal, iterations)
    baseline = "official" if real else "plain"
    calls["float32"] = lambda: our_plan(model, frames, goal, iterations)
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        calls[name] = lambda dtype=dtype: our_plan(model, frames, goal, iterations, dtype=dtype)
    check(model, frames, goal)
    timings = harness.interleave(calls, rounds=rounds, warmup=0, min_seconds=0)
    ratios = {name: harness.speedup(timings, name, baseline) for name in calls}
    labels = {"plain": "plain rule, our model", "official": real[2] if real else ""}
    labels |= {n: f"goal_cost and CEM, {n}" for n in calls if n not in labels}
    harness.save(
        "planning",
        f"One LeWM plan on the CPU: {SAMPLES} candidates, {iterations} iterations, horizon 5, "
        "18 M parameters",
        [{"case": n, **t.record(), "speedup": ratios[n].median} for n, t in timings.items()],
        columns=("what", "time", "times faster"),
        rows=[(labels[n], str(t), f"{ratios[n].median:.2f}") for n, t in timings.items()],
        note=(
            f"Compared with {real[2] + ', the real package' if real else 'the plain rule'}; one "
            "problem, one frame of history, encoding included."
        ),
    )


class Plain(nn.Module):
    """A predictor without its quick rollout."""

    def __init__(self, predictor: Any, quantize: bool = False) -> None:
        super().__init__()
        self.dim, self.history, self.inner = predictor.dim, predictor.history, predictor
        if quantize:  # to 8-bit integers: weights once, inputs at each call
            parts = {f"blocks.{n}.{part}" for n in range(len(predictor.blocks))
                     for part in ("attention", "mlp")}  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.inner = torch.ao.quantization.quantize_dynamic(predictor, parts)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """As the predictor."""
        return self.inner(z, actions)


def bench_precision(rounds: int, problems: int = 32) -> None:
    """The share of float32's elites that stays, of a trained model, and times at published size."""
    trained = from_pretrained(str(harness.ROOT / "pretrained" / "reacher")).eval()
    world = open_world("reacher", workers=1, image_size=64)
    states = world.sample_states(np.random.default_rng(0), 2 * problems)
    frames, goal = torch.from_numpy(world.draw(states)).split(problems)
    costs = in_precisions(trained, frames[:, None], goal)
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.zeros(2, problems, HORIZON, trained.action_encoder.action_dim)
    std = std + 1
    kept: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(10):
        shape = (SAMPLES, *mean.shape)
        noise = torch.randn(shape, generator=generator).transpose(0, 1)
        candidates = mean[:, None] + std[:, None] * noise
        best = {name: cost(candidates).topk(ELITES, largest=False)[1]
                for name, cost in costs.items()}  # fmt: skip
        for name, own in best.items():
            same = (own[:, :, None] == best["float32"][:, None]).any(-1)
            kept[name].append(float(same.float().mean()))
        elites = candidates[torch.arange(problems)[:, None], best["float32"]]
        mean, std = elites.mean(1), elites.std(1)
    large = trained_like(presets.lewm())
    calls = in_precisions(large, torch.rand(1, 1, 3, 224, 224), torch.rand(1, 3, 224, 224))
    plans = torch.randn(1, SAMPLES, HORIZON, A)
    timed = {name: lambda cost=cost: cost(plans) for name, cost in calls.items()}
    timings = harness.interleave(timed, rounds=rounds, warmup=1, min_seconds=0)
    ratios = {name: harness.speedup(timings, name, "float32") for name in timings}
    at = (0, 4, 9)
    harness.save(
        "planning_precision",
        f"Which of {ELITES} elites of {SAMPLES} stay in lower precision, and what is gained?",
        [{"case": n, "elites": kept[n], "speedup": ratios[n].median, **t.record()}
         for n, t in timings.items()],
        columns=("rollout in", *(f"elites, iteration {n + 1}" for n in at), "time of a cost",
                 "times faster"),
        rows=[(n, *(f"{kept[n][i]:.0%}" for i in at), str(t), f"{ratios[n].median:.2f}")
              for n, t in timings.items()],
        note=f"Elites: pretrained/reacher, {problems} random starts and goals; CEM converges by "
        "float32's elites. Time: random weights of the published size, 300 candidates. int8: "
        "torch.ao.quantization.quantize_dynamic of attention and feed-forward layers, in the plain "
        "rollout, which repeats products. A processor with VNNI names it in its flags.",
    )  # fmt: skip


def in_precisions(
    model: WorldModel, frames: Tensor, goal: Tensor
) -> dict[str, Callable[[Tensor], Tensor]]:
    """`goal_cost` in each precision."""
    plain, int8 = (
        WorldModel(model.encoder, model.action_encoder, Plain(model.predictor, quantize)).eval()
        for quantize in (False, True)
    )
    return {
        "float32": goal_cost(model, frames, goal),
        "bfloat16": goal_cost(model, frames, goal, dtype=torch.bfloat16),
        "float16": goal_cost(model, frames, goal, dtype=torch.float16),
        "float32, plain rollout": goal_cost(plain, frames, goal),
        "int8, plain rollout": goal_cost(int8, frames, goal),
    }


def check(model: WorldModel, frames: Tensor, goal: Tensor) -> None:
    """Refuse to time two things that differ: the same costs to 1e-4 of their size."""
    actions = torch.randn(1, 20, HORIZON, A)
    with torch.no_grad():
        z, z_goal = model.encode(frames), model.encode(goal[:, None])
        plain = model.rollout(z.expand(20, -1, -1), actions[0])[:, -1] - z_goal[0]
        ours = goal_cost(model, frames, goal)(actions)[0]
    torch.testing.assert_close(ours, plain.square().sum(-1), rtol=1e-4, atol=1e-5)


def bench_batch(rounds: int, iterations: int, problems: int) -> None:
    """Many problems at once, or one plan after another."""
    model = trained_like(presets.lewm())
    frames, goal = torch.rand(problems, 1, 3, 224, 224), torch.rand(problems, 3, 224, 224)
    method = CEM(num_samples=SAMPLES, num_elites=ELITES)
    start = torch.zeros(problems, HORIZON, A)
    together = goal_cost(model, frames, goal)
    alone = [goal_cost(model, frames[b : b + 1], goal[b : b + 1]) for b in range(problems)]

    def one_after_another() -> None:
        for cost in alone:
            optimize(method, cost, start[:1], iterations=iterations)

    calls = {
        "one after another": one_after_another,
        "at once": lambda: optimize(method, together, start, iterations=iterations),
    }
    timings = harness.interleave(calls, rounds=rounds, warmup=0, min_seconds=0)
    ratio = harness.speedup(timings, "at once", "one after another")
    harness.save(
        "planning_batch",
        f"{problems} LeWM plans on the CPU, {iterations} of their 30 iterations",
        [{"case": n, **t.record()} for n, t in timings.items()] + [{"speedup": ratio.median}],
        columns=("what", "time", "times faster"),
        rows=[
            ("one after another", str(timings["one after another"]), "1.00"),
            ("at once", str(timings["at once"]), f"{ratio.median:.2f}"),
        ],
        note="float32; frames and goals already encoded on both sides.",
    )


def worked(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, harness.Timing]:
    """Processor seconds of each call on one thread, turn by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: harness.Timing(tuple(values)) for name, values in seconds.items()}


def bench_work(rounds: int, iterations: int, problems: int) -> None:
    """Processor time on one thread: one plan, and several at once."""
    torch.set_num_threads(1)
    real = official()
    model = published_twin(real[1]) if real else trained_like(presets.lewm())
    frames, goal = torch.rand(problems, 1, 3, 224, 224), torch.rand(problems, 3, 224, 224)
    one = (frames[:1], goal[:1], iterations)
    calls = {"plain": lambda: plain_plan(model, *one), "float32": lambda: our_plan(model, *one)}
    if real:
        calls["official"] = lambda: real[0](*one)
    few, begin = ICEM(24, 4, init_std=1.0, decay=1.0), torch.zeros(1, HORIZON, A)
    calls["few"] = lambda: optimize(few, goal_cost(model, *one[:2]), begin, iterations=2)
    check(model, frames[:1], goal[:1])
    timings = worked(calls, rounds)
    start = torch.zeros(problems, HORIZON, A)
    together = goal_cost(model, frames, goal)
    alone = [goal_cost(model, frames[b : b + 1], goal[b : b + 1]) for b in range(problems)]
    method = CEM(num_samples=SAMPLES, num_elites=ELITES)
    timings |= worked(
        {
            "one after another": lambda: [
                optimize(method, cost, start[:1], iterations=1) for cost in alone
            ],
            "at once": lambda: optimize(method, together, start, iterations=1),
        },
        rounds,
    )
    baseline = "official" if real else "plain"
    against = {n: "one after another" if n in ("one after another", "at once") else baseline
               for n in timings}  # fmt: skip
    ratios = {n: harness.speedup(timings, n, against[n]) for n in timings}
    plan = f"one plan, {iterations} of 30 iterations: "
    labels = {
        "plain": f"{plan}plain rule, our model",
        "official": plan + (real[2] if real else ""),
        "float32": f"{plan}goal_cost and CEM, float32",
        "few": "one whole plan of 48 rollouts (iCEM 24 × 2), goal_cost",
        "one after another": f"{problems} problems one after another, 1 iteration",
        "at once": f"{problems} problems at once, 1 iteration",
    }
    harness.save(
        "planning_work",
        f"Processor time of LeWM plans on one thread: {SAMPLES} candidates, horizon 5, "
        "18 M parameters",
        [{"case": n, **t.record(), "speedup": ratios[n].median} for n, t in timings.items()],
        columns=("what", "processor time", "times faster", "quartiles"),
        rows=[
            (
                labels[n],
                str(t),
                "" if n == "few" else f"{ratios[n].median:.2f}",
                "" if n == "few" else "–".join(f"{value:.2f}" for value in ratios[n].spread),
            )
            for n, t in timings.items()
        ],
        note="Processor time, because the machine had other work: it counts no waiting, and "
        "says nothing about a second thread. float32; a plan includes encoding. In a running loop "
        "48 rollouts reach as many goals as 9,000, see choose-planner.",
    )


def bench_small(rounds: int, problems: int = 100, samples: int = 128) -> None:
    """One call of the demo's cost against the plain rollout of the same plans."""
    model = trained_like(presets.small())
    frames, goal = torch.rand(problems, 1, 3, 64, 64), torch.rand(problems, 3, 64, 64)
    actions = torch.randn(problems, samples, HORIZON, A)
    cost = goal_cost(model, frames, goal)
    with torch.no_grad():
        z = model.encode(frames).repeat_interleave(samples, dim=0)

        def plain() -> None:
            model.rollout(z, actions.flatten(0, 1))

        calls = {"plain rollout": plain, "goal_cost": lambda: cost(actions)}
        timings = harness.interleave(calls, rounds=rounds, warmup=1, min_seconds=0)
    ratio = harness.speedup(timings, "goal_cost", "plain rollout")
    harness.save(
        "planning_small",
        f"One cost call of the demo's model: {problems} problems, {samples} candidates, horizon 5",
        [{"case": n, **t.record()} for n, t in timings.items()] + [{"speedup": ratio.median}],
        columns=("what", "time", "times faster"),
        rows=[
            ("plain rollout", str(timings["plain rollout"]), "1.00"),
            ("goal_cost", str(timings["goal_cost"]), f"{ratio.median:.2f}"),
        ],
        note="float32; frames and goal already encoded on both sides.",
    )


def main() -> None:
    """Run the named part, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=("plan", "batch", "small", "work", "precision"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, help="of CEM; fewer for a first look")
    parser.add_argument("--problems", type=int, default=50, help="of the batch")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.part in (None, "plan"):
        bench_plan(arguments.rounds, arguments.iterations or ITERATIONS)
    if arguments.part in (None, "batch"):
        bench_batch(arguments.rounds, arguments.iterations or 1, arguments.problems)
    if arguments.part in (None, "small"):
        bench_small(5 * arguments.rounds)
    if arguments.part == "precision":
        bench_precision(arguments.rounds)
    if arguments.part == "work":
        bench_work(arguments.rounds, arguments.iterations or 2, min(arguments.problems, 6))


if __name__ == "__main__":
    sys.exit(main())
