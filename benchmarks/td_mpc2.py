"""TD-MPC2's cost and search on the parts of this library: an arm of `bench_far.py`.

    cost = −Σ_{0<h<H} γ^h r(ẑ_h, g) − γ^H min_i V_i(ẑ_H, g),   r = −1 per block, 0 at the goal

A head learns r from recorded states. V is GCIVL's, so that model and learner are those of the
other arms; TD-MPC2 learns model, reward and Q together, from online rewards. The search has the
settings of its release: MPPI over 3 blocks, 6 iterations of 512 candidates, of which 24 follow the
policy. Actions are held for a block, as by the other searches without proposals.

Source: TD-MPC2, arXiv:2310.16828 and its released code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from planners import MPC, MPPI
from planners.noise import Noise
from planners.sampling import Gaussian
from worldmodel import goals
from worldmodel.apps.evaluate import evaluate, read_manifest
from worldmodel.apps.evaluate.policies import Actor, Floats, Scene, Task, bounds_of
from worldmodel.apps.evaluate.result import write_result
from worldmodel.apps.runs import LEARNER, Run, open_run
from worldmodel.apps.settings import TrialSettings
from worldmodel.apps.study.command import sequences
from worldmodel.data import episode_digests
from worldmodel.data.opening import open_episodes
from worldmodel.heads import fit_head
from worldmodel.learning import load_learner
from worldmodel.values import GCIVL
from worldmodel.worlds import World, open_world

HORIZON, ITERATIONS, SAMPLES, PROPOSALS = 3, 6, 512, 24
SEARCH = MPPI(SAMPLES - PROPOSALS, 1 / 0.5, 2.0, top_k=64, adapt_std=True, min_std=0.05,
              returns="sample")  # fmt: skip
STD = 0.3  # around GCIVL's mean, in place of the learned deviation of TD-MPC2's policy
TOGETHER = 10  # pairs per call of the model
Pairwise = Callable[[Tensor, Tensor], Tensor]  # z, g [..., D] -> [...]


@dataclass(frozen=True, eq=False)
class WithPolicy:
    """`SEARCH`, whose candidates in every iteration begin with a policy's plans [B, P, H, A]."""

    plans: Tensor
    discrete: ClassVar[bool] = False
    init, tell, plan = SEARCH.init, SEARCH.tell, SEARCH.plan

    def ask(self, state: Gaussian, noise: Noise) -> Tensor:
        """The policy's plans, then those of MPPI."""
        return torch.cat([self.plans, SEARCH.ask(state, noise)], 1)


@dataclass(frozen=True, eq=False)
class TDMPC2:
    """A policy of `worldmodel evaluate` that plans by reward and value."""

    run: Run
    learner: GCIVL
    reward: Pairwise

    def begin(self, task: Task) -> Actor:
        """A planner for all pairs; it gets pictures of the goals, not states."""
        num, k, γ = len(task.goals), self.run.frameskip, self.learner.recipe.discount
        imagination, bounds = self.run.world_model.imagine(), bounds_of(task.world, self.run.scale)
        z_goal = imagination.embed(torch.from_numpy(task.world.draw(task.goals)))
        mpc = MPC(
            SEARCH, horizon=HORIZON, action_dim=task.world.action_dim, iterations=ITERATIONS,
            bounds=bounds, seed=torch.from_numpy(task.seeds), batch=num,
        )  # fmt: skip
        noises = [torch.Generator().manual_seed(seed) for seed in task.seeds.tolist()]
        groups = torch.arange(num).split(TOGETHER)
        weights = [*(γ**h for h in range(1, HORIZON)), 0.0]
        wanted = [
            goals.temporal(lambda z, g: -self.reward(z, g), z_goal[some], weights=weights)
            + γ**HORIZON * goals.temporal(self._loss, z_goal[some])
            for some in groups
        ]

        def act(scene: Scene) -> Floats:
            frames = torch.from_numpy(scene.frames())[:, None]
            views = [imagination.look(frames[some]) for some in groups]

            def cost(plans: Tensor) -> Tensor:
                held = plans.repeat(1, 1, 1, k)
                scored = zip(wanted, views, groups, strict=True)
                return torch.cat([goal(view(held[some])) for goal, view, some in scored])

            shape = PROPOSALS, HORIZON, task.world.action_dim
            noise = torch.stack([STD * torch.randn(shape, generator=one) for one in noises])
            noise[:, 0] = 0
            z = torch.cat([view.z[:, -1] for view in views])
            plans = self._plans(z, z_goal, noise, bounds.box(noise))
            actions = mpc.act(cost, method=WithPolicy(plans))
            out: Floats = actions.repeat_interleave(k, dim=1).numpy()
            return out

        return act

    def _loss(self, z: Tensor, goal: Tensor) -> Tensor:
        return -self.learner.values(z, goal).amin(0)

    @torch.no_grad()
    def _plans(
        self, z: Tensor, z_goal: Tensor, noise: Tensor, box: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The policy with noise [B, P, H, A], acting in imagination."""
        P, k, plans = noise.shape[1], self.run.frameskip, list[Tensor]()
        z, goal = z.repeat_interleave(P, 0), z_goal.repeat_interleave(P, 0)
        for more in noise.flatten(0, 1).unbind(1):
            block = self.learner(z, goal)[:, 0, 0].unflatten(-1, (k, -1)).mean(1)
            plans.append((block + more).clamp(*box))
            z = self.run.world_model.rollout(z[:, None], plans[-1].repeat(1, k)[:, None])[:, -1]
        return torch.stack(plans, 1).unflatten(0, (-1, P))


def learn_reward(run: Run, data: Path, world: World, num: int = 8192) -> Pairwise:
    """Fit r(z, g) to recorded states: 0 where the world calls g reached, else −1."""
    episodes = open_episodes(str(data))
    names = episode_digests(episodes)
    free = torch.tensor([e for e, name in enumerate(names) if name not in run.held_out])
    known = sequences(run, episodes, free[:200])
    assert known.states is not None
    (E, T), rng = known.z.shape[:2], np.random.default_rng(0)
    e, t = rng.integers(E, size=num), rng.integers(T, size=num)
    # Most goals are few blocks away, so that many are reached.
    far = rng.random(num) < 0.3
    g_e = np.where(far, rng.integers(E, size=num), e)
    g_t = np.where(far, rng.integers(T, size=num), (t + rng.integers(-3, 4, num)).clip(0, T - 1))
    reached = torch.from_numpy(
        world.success(known.states[e, t].numpy(), known.states[g_e, g_t].numpy())
    )

    def see(z: Tensor, goal: Tensor) -> Tensor:
        return torch.cat([z, (goal - z).square()], -1)

    x, y = see(known.z[e, t], known.z[g_e, g_t]), reached[:, None].float() - 1
    fit = num * 3 // 4
    head = fit_head(x[:fit], y[:fit], (128,))
    right = ((head(x[fit:]) > -0.5) == reached[fit:, None]).float().mean()
    print(f"reward: {reached.float().mean():.0%} of pairs reached, {right:.1%} read right")
    return lambda z, goal: head(see(z, goal))[..., 0].clamp(-1, 0)


def judge(whose: Path, data: Path, task: Path, out: Path) -> None:
    """Evaluate on a manifest and write result.json."""
    run, manifest = open_run(whose), read_manifest(task)
    learner = load_learner(run.folder / LEARNER, model=run.world_model)
    assert isinstance(learner, GCIVL)
    world = open_world(manifest.env, image_size=run.world_model.encoder.image_size)
    policy = TDMPC2(run, learner, learn_reward(run, data, world))
    result = evaluate(policy, manifest, TrialSettings(), world=world, title="td-mpc2")
    told = {"run": str(whose), "rollouts_per_decision": SAMPLES * ITERATIONS}
    mark = result.fingerprint.model_copy(update=told)
    out.mkdir(parents=True, exist_ok=True)
    write_result(result.model_copy(update={"fingerprint": mark}), out / "result.json")
