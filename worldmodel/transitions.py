"""Steps of recorded episodes with goals drawn for them: what policies and values learn from.

Letters: E episodes, T embeddings of each, D embedding dims, A action dims of a block, n blocks of a
chunk, N steps drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Goals", "Transitions", "draw"]


class Goals(NamedTuple):
    """How goals are drawn.

    Attributes:
        chunk: n, blocks that are decided and done together.
        discount: γ of one block; value goals of the same episode lie 1 / (1 − γ) blocks ahead on
            average.
        ahead: k, blocks to a sub-goal.
        random: share of policy goals from other episodes; 0 unless episodes are pieces that must
            be stitched together, since a policy imitates its data even on the way to nowhere.
    """

    chunk: int = 1
    discount: float = 0.99
    ahead: int = 5
    random: float = 0.0


class Transitions(NamedTuple):
    """N steps, each with goals. No action before the step is in it: see `draw`.

    Attributes:
        z: [N, D], s_t.
        actions: [N, n, A], what was done from there.
        following: [N, D], s_{t+n}.
        value_goal: [N, D], for values.
        reward: [N], −Σ_{i<n} γ^i until the value goal is reached, 0 where s_t is it.
        discount: [N], γ^n, or 0 where the value goal is reached on the way.
        goal: [N, D], for policies, later in the episode.
        until: [N], blocks until then; those done later lead elsewhere.
        subgoal: [N, D], k blocks ahead, but no further than `goal`.
        low_goal: [N, D], k blocks ahead, but no further than the end.
    """

    z: Tensor
    actions: Tensor
    following: Tensor
    value_goal: Tensor
    reward: Tensor
    discount: Tensor
    goal: Tensor
    until: Tensor
    subgoal: Tensor
    low_goal: Tensor


def draw(
    z: Tensor, actions: Tensor, num: int, goals: Goals, generator: torch.Generator
) -> Transitions:
    """Draw steps and goals as OGBench does; with chunks of one block it is OGBench's rule.

        value goals     s_t itself .2, later in the episode, geometrically .5, any state .3
        policy goals    later in the episode, uniformly, or any state with `goals.random`

    That a goal is reached is a matter of its index, not of how alike two embeddings are. What a
    policy may look at is `z` and a goal: past actions raise its likelihood on data and lower its
    success (a policy that repeats its last action fits data well).

    Args:
        z: [E, T, D], T > n.
        actions: [E, T − 1, A], done between them.
        num: N.
        goals: Goals.
        generator: source of all randomness, on the device of z.
    Returns: Transitions.
    Raises: ValueError if shapes disagree or episodes are shorter than a chunk.
    Source: OGBench, arXiv:2410.20092, `impls/utils/datasets.py`; past actions: Cube 100 → 76 %,
        Push-T 91 → 31 %, with and without, GC-IDM, arXiv:2605.08732.
    """
    E, T, _ = z.shape
    n, γ = goals.chunk, goals.discount
    if actions.shape[:2] != (E, T - 1) or not 1 <= n < T:
        raise ValueError(
            "z and actions must be [E, T, D] and [E, T - 1, A] with T > chunk = "
            f"{n}, got {list(z.shape)} and {list(actions.shape)}"
        )

    def u() -> Tensor:
        return torch.rand(num, generator=generator, device=z.device, dtype=torch.float64)

    e, other = (u() * E).long(), (u() * E).long()
    t = (u() * (T - n)).long()
    last = torch.full_like(t, T - 1)
    # Any state but the last of an episode, from which nothing was done.
    elsewhere = (u() * (T - 1)).long()
    geometric = torch.minimum(t + 1 + (torch.log1p(-u()) / torch.tensor(γ).log()).long(), last)
    here, own, x = u() < 0.2, u() < 0.5 / 0.8, u()
    v_t = torch.where(here, t, torch.where(own, geometric, elsewhere))
    v_e = torch.where(here | own, e, other)
    later = ((t + 1) * x + last * (1 - x)).round().long()
    away = u() < goals.random
    g_t, g_e = torch.where(away, elsewhere, later), torch.where(away, other, e)
    low = torch.minimum(t + goals.ahead, last)
    high = torch.where(away, low, torch.minimum(t + goals.ahead, later))
    # Blocks to the value goal where it lies ahead in the same episode, else more than a chunk.
    apart = torch.where((v_e == e) & (v_t >= t), v_t - t, n + 1)
    steps = apart.clamp_max(n)
    return Transitions(
        z=z[e, t],
        actions=actions[e[:, None], t[:, None] + torch.arange(n, device=z.device)],
        following=z[e, t + n],
        value_goal=z[v_e, v_t],
        reward=(-(1 - γ**steps) / (1 - γ)).to(z),
        discount=torch.where(apart < n, 0.0, γ**n).to(z),
        goal=z[g_e, g_t],
        until=torch.where(away, n, later - t),
        subgoal=z[e, high],
        low_goal=z[e, low],
    )
