"""Steps of recorded episodes with goals drawn for them: training data of policies and values.

Letters: E episodes, T embeddings, D embedding dims, A action dims, n blocks of a chunk, N steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel._arguments import checked

__all__ = ["Recipe", "Transitions", "draw"]


@checked(discount="[0, 1]", share="(0, 1)", alpha="[0, inf)", random="[0, 1]")
@dataclass(frozen=True)
class Recipe:
    """Sizes of policies and values, and the goals they learn from."""

    chunk: int = 1  #: n, blocks that are decided together.
    modes: int = 1  #: K, Gaussians of a policy; as many proposals.
    hidden: tuple[int, ...] = (512, 512, 512)  #: Widths of every network.
    #: γ of a block: the horizon, and the mean distance of value goals, is 1 / (1 − γ) blocks.
    discount: float = 0.99
    share: float = 0.9  #: κ, the expectile; near 1 for the best recorded continuation.
    alpha: float = 10.0  #: α, temperature of AWR, or weight of cloning.
    ahead: int = 5  #: k, blocks to a sub-goal; 25 steps in the source, 10 where things are handled.
    #: Share of policy goals from anywhere; above 0 only where episodes must be stitched together.
    random: float = 0.0


class Transitions(NamedTuple):
    """N steps, each with goals."""

    z: Tensor  #: [N, D], s_t.
    actions: Tensor  #: [N, n, A], what was done from there.
    following: Tensor  #: [N, D], s_{t+n}.
    value_goal: Tensor  #: [N, D], for values.
    reward: Tensor  #: [N], −Σ_{i<n} γ^i until the value goal is reached, 0 where s_t is it.
    discount: Tensor  #: [N], γ^n, or 0 where the value goal is reached on the way.
    goal: Tensor  #: [N, D], for policies, later in the episode.
    until: Tensor  #: [N], blocks until then; those done later lead elsewhere.
    subgoal: Tensor  #: [N, D], k blocks ahead, but no further than `goal`.
    low_goal: Tensor  #: [N, D], k blocks ahead, but no further than the end.


def check_recorded(z: Tensor, actions: Tensor, name: str, least: int) -> int:
    """Raise unless z is [E, T, D] with T > `least` ≥ 1 and actions [E, T − 1, A]; T − `least`."""
    (E, T, _), both = z.shape, f"{list(z.shape)} and {list(actions.shape)}"
    if actions.shape[:2] != (E, T - 1) or not 1 <= least < T:
        rule = f"[E, T, D] and [E, T - 1, A] with T > {name} = {least}"
        raise ValueError(f"z and actions must be {rule}, got {both}")
    return T - least


@checked(z="E T D", actions="E S A")
def draw(
    z: Tensor, actions: Tensor, num: int, recipe: Recipe, generator: torch.Generator
) -> Transitions:
    """Draw steps and goals as OGBench does; with chunks of one block it is OGBench's rule.

        value goals     s_t itself .2, later in the episode, geometrically .5, any state .3
        policy goals    later in the episode, uniformly; anywhere with `recipe.random`

    A goal is reached at its index, not where two embeddings are alike. Actions before the step are
    not drawn: a policy that sees them repeats them, which fits the data and fails in use.

    Args:
        z, actions: [E, T, D], T > n, and [E, T − 1, A] between them.
        num, recipe, generator: N, and the source of all randomness, on the device of z.
    Raises: ValueError if shapes disagree or episodes are no longer than a chunk.
    Source: OGBench, arXiv:2410.20092, `impls/utils/datasets.py`; past actions: Cube 100 → 76 %,
        Push-T 91 → 31 %, GC-IDM, arXiv:2605.08732.
    """
    (E, T, _), n, γ = z.shape, recipe.chunk, recipe.discount
    check_recorded(z, actions, "chunk", n)

    def u() -> Tensor:
        return torch.rand(num, generator=generator, device=z.device, dtype=torch.float64)

    e, other, t = (u() * E).long(), (u() * E).long(), (u() * (T - n)).long()
    last = torch.full_like(t, T - 1)
    # Any state but the last of an episode, which has no action.
    elsewhere = (u() * (T - 1)).long()
    geometric = torch.minimum(
        t + 1 + (torch.log1p(-u()) / torch.tensor(γ, device="cpu").log()).long(), last
    )
    here, own, x = u() < 0.2, u() < 0.5 / 0.8, u()
    v_t = torch.where(here, t, torch.where(own, geometric, elsewhere))
    v_e = torch.where(here | own, e, other)
    later = ((t + 1) * x + last * (1 - x)).round().long()
    away = u() < recipe.random
    g_t, g_e = torch.where(away, elsewhere, later), torch.where(away, other, e)
    low = torch.minimum(t + recipe.ahead, last)
    high = torch.where(away, low, torch.minimum(low, later))
    # Blocks to the value goal where it lies ahead in the same episode, else more than a chunk.
    apart = torch.where((v_e == e) & (v_t >= t), v_t - t, n + 1)
    return Transitions(
        z=z[e, t],
        actions=actions[e[:, None], t[:, None] + torch.arange(n, device=z.device)],
        following=z[e, t + n],
        value_goal=z[v_e, v_t],
        reward=(-(1 - γ ** apart.clamp_max(n).double()) / (1 - γ)).to(z),
        discount=torch.where(apart < n, 0.0, γ**n).to(z),
        goal=z[g_e, g_t],
        until=torch.where(away, n, later - t),
        subgoal=z[e, high],
        low_goal=z[e, low],
    )
