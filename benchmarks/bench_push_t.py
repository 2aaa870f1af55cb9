"""How fast are Push-T's pictures and physics beside gym-pusht's own? One process, one thread.

python benchmarks/bench_push_t.py
"""

from __future__ import annotations

import os

import cv2
import numpy as np
import torch
from harness import interleave, save, speedup

from worldmodel.worlds import open_world

SIZES, NUM = (64, 96, 224), 128


def main() -> None:
    """Frames a second by size, and steps a second."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from gym_pusht.envs.pusht import PushTEnv

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    states = open_world("push-t").sample_states(rng, NUM)
    actions = rng.uniform(-1, 1, (NUM, 2)).astype(np.float32)
    env = PushTEnv()
    env._setup()

    def put(state: np.ndarray) -> None:
        env.agent.position, env.block.angle = state[:2].tolist(), float(state[4])
        env.block.position = state[2:4].tolist()
        for body in (env.agent, env.block):
            env.space.reindex_shapes_for_body(body)

    def theirs(size: int) -> np.ndarray:
        frames = []
        for state in states:
            put(state)
            image = env._get_img(env._draw(), 512, 512)
            frames.append(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
        return np.stack(frames).transpose(0, 3, 1, 2)

    rows: list[list[str]] = []
    results: list[dict[str, object]] = []
    for size in SIZES:
        world = open_world("push-t", image_size=size)
        difference = float(np.abs(world.draw(states).astype(float) - theirs(size)).mean())
        timings = interleave(
            {"ours": lambda w=world: w.draw(states), "gym-pusht": lambda n=size: theirs(n)},
            rounds=9,
        )
        rate = {name: NUM / timing.median for name, timing in timings.items()}
        ratio = speedup(timings, "ours", "gym-pusht")
        results.append(
            {"work": f"draw {size} px", "per_second": rate, "ratio": ratio.record(),
             "mean_difference": difference}
        )  # fmt: skip
        rows.append([f"draw, {size} px", f"{rate['ours']:,.0f}", f"{rate['gym-pusht']:,.0f}",
                     f"{ratio.median:.1f} ×", f"{difference:.2f}"])  # fmt: skip
    session = open_world("push-t")

    def gym_steps() -> None:
        # No set-up between steps: its running simulation, which no state describes.
        for action in actions:
            env.step(np.asarray(env.agent.position) + 100 * action.astype(np.float64))

    timings = interleave(
        {"ours": lambda: session.start(states).step(actions), "gym-pusht": gym_steps}, rounds=9
    )
    rate = {name: NUM / timing.median for name, timing in timings.items()}
    ratio = speedup(timings, "ours", "gym-pusht")
    results.append({"work": "step", "per_second": rate, "ratio": ratio.record()})
    rows.append(["step", f"{rate['ours']:,.0f}", f"{rate['gym-pusht']:,.0f}",
                 f"{ratio.median:.1f} ×", ""])  # fmt: skip
    save(
        "push_t_speed",
        "Push-T: frames and steps a second of one process, one thread, beside gym-pusht's own",
        results,
        columns=["work", "ours, per second", "gym-pusht, per second", "ratio", "grey levels off"],
        rows=rows,
        note="gym-pusht's frames are drawn at 512 pixels and shrunk by area. Its steps continue "
        "one simulation, where ours begin from a state each, and they also compute its reward.",
    )


if __name__ == "__main__":
    main()
