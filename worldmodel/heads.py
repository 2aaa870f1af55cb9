"""Heads on frozen embeddings: quantities for goals, fitted in seconds.

Letters: N rows, E episodes, T frames of each, D embedding dims, Q quantities.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel._files import write_atomically
from worldmodel.checkpoint import as_bytes, notes_of, read_weights
from worldmodel.layers import given
from worldmodel.model import WorldModel
from worldmodel.records import as_seed
from worldmodel.transitions import check_recorded

__all__ = [
    "DistanceHead", "Head", "fit_distance", "fit_head", "fit_metric", "load_head", "save_head",
]  # fmt: skip

PartT = TypeVar("PartT", bound=nn.Module)


@checked()
class Head(nn.Module):
    """Quantities of a standardised embedding, in their own units: a linear map, or an MLP.

    Args:
        dim, out: D and Q.
        hidden: widths between; none makes it linear.
    Shapes: z [..., D] -> [..., Q].
    """

    centre: Tensor
    spread: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, dim: int, out: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = given(locals()) | {"hidden": list(hidden)}
        layers: list[nn.Module] = []
        for a, b in pairwise([dim, *hidden, out]):
            layers += [nn.Linear(a, b), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("middle", torch.zeros(out))
        self.register_buffer("scale", torch.ones(out))

    @checked(z="any * D")
    def forward(self, z: Tensor) -> Tensor:
        """Read embeddings [..., D]: [..., Q]."""
        return self.net((z - self.centre) / self.spread) * self.scale + self.middle


@checked()
class DistanceHead(nn.Module):
    """The number of steps from one embedding to another: f(z, z_goal) ≈ log(1 + steps).

    Args:
        dim, hidden: D, and hidden widths.
    Shapes: z [..., D], z_goal [..., D] -> [...].
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.config = given(locals()) | {"hidden": list(hidden)}
        self.head = Head(3 * dim, 1, hidden)

    @checked(z="* D", z_goal="* D")
    def forward(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """log(1 + steps) from z [..., D] to z_goal [..., D]: [...]."""
        return self.head(torch.cat([z, z_goal, z_goal - z], dim=-1))[..., 0]


@checked(z="N D", y="N Q")
def fit_head(z: Tensor, y: Tensor, hidden: Sequence[int] = (), *, seed: int = 0) -> Head:
    """Fit a head: least squares if it is linear, otherwise 400 full-batch steps of Adam.

    A rate of 3e-3 with a cosine schedule lets the R² settle on thousands of samples.

    Args:
        z, y: [N, D] embeddings and [N, Q] quantities: states or parts of them, rewards, returns.
        hidden: widths between; none makes it linear.
        seed: of the first weights.
    Returns: Head in eval mode, without gradients of its own.
    Raises: ValueError if rows disagree, or there are fewer than D + 1.
    """
    if len(z) < z.shape[1] + 1:
        got = f"{list(z.shape)} and {list(y.shape)}"
        raise ValueError(f"z and y must be [N, D] and [N, Q] with N >= D + 1, got {got}")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(as_seed(seed))
        head = Head(z.shape[1], y.shape[1], hidden).to(z)
    _standardise(head, z, y)
    x, target = (z - head.centre) / head.spread, (y - head.middle) / head.scale
    if hidden:
        descend(head.net, lambda: F.mse_loss(head.net(x), target), rate=3e-3, steps=400)
    else:
        # A ridge of 1e-6 N, because a collapsed embedding has no least-squares solution.
        gram = x.T @ x + 1e-6 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        (linear,) = head.net
        with torch.no_grad():
            linear.weight.copy_(torch.linalg.solve(gram, x.T @ target).T)  # type: ignore[operator]
            linear.bias.zero_()  # type: ignore[operator]
    return head.requires_grad_(False).eval()


@checked(z="E T>=2 D", ridge="(0, inf)")
def fit_metric(z: Tensor, ridge: float = 1e-3) -> Head:
    """Coordinates in which a step of the data changes every direction equally.

        metric(z) = C^(-1/2) z,    C = mean (z_{t+1} − z_t)(z_{t+1} − z_t)ᵀ + ridge · λ_max · I

    Distances between embeddings become Mahalanobis distances in units of a step: what moves slowly
    and costs many steps, such as a pushed block, counts more than what every action moves. Use it
    as the `metric` of `goals.near`.

    Args:
        z: [E, T, D], embeddings of E windows, a block apart.
        ridge: of the largest eigenvalue λ_max, so that what hardly changes is no noise.
    Returns: a linear Head, [..., D] -> [..., D].
    Raises: ValueError if no embedding changes, or one is not finite.
    Source: Mahalanobis distance of local changes, Singer & Coifman, Applied and Computational
        Harmonic Analysis 25 (2008), here with one covariance for all places.
    """
    steps = z.diff(dim=1).flatten(0, 1).double().cpu()
    if not 0 < (size := float(steps.square().sum())) < float("inf"):
        raise ValueError(f"z must change along its windows and be finite, got changes of {size}")
    values, vectors = torch.linalg.eigh(steps.T @ steps / len(steps))
    scale = (values.clamp_min(0) + ridge * values[-1]).rsqrt()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        head = Head(z.shape[-1], z.shape[-1])
    (linear,) = head.net
    with torch.no_grad():
        linear.weight.copy_((vectors * scale) @ vectors.T)  # type: ignore[operator]
        linear.bias.zero_()  # type: ignore[operator]
    return head.to(z).requires_grad_(False).eval()


@checked(z="E T D", actions="E S A")
def fit_distance(
    model: WorldModel,
    z: Tensor,
    actions: Tensor,
    *,
    reach: int = 5,
    unit: int = 1,
    hidden: Sequence[int] = (256, 256),
    steps: int = 1000,
    seed: int = 0,
) -> DistanceHead:
    """Learn distances from episodes, by pairs of imagined and later recorded embeddings.

        f(ẑ_{t+h}, z_g) → log(1 + unit · (g − t − h)),   h in 0…reach,  g in t + h…T − 1

    ẑ_{t+h} is rolled out from z_t under the recorded actions, because a head trained on recorded
    embeddings alone fails on imagined ones. Differences are drawn evenly: far pairs count as much.

    Args:
        model: in eval mode, for its rollout.
        z, actions: of episodes, [E, T, D] with T > reach, and [E, T − 1, A] between them.
        reach, unit: blocks imagined ahead, the planner's horizon; steps between two frames.
        hidden, steps, seed: hidden widths; steps of Adam, 1,024 pairs each; of all draws.
    Returns: DistanceHead in eval mode, without gradients of its own.
    Raises: ValueError if shapes disagree or episodes are no longer than `reach`.
    Source: with imagined pairs the error on imagined embeddings falls to 3 %, arXiv:2608.10145.
    """
    E, T, D = z.shape
    check_recorded(z, actions, "reach", reach)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(as_seed(seed))
        head = DistanceHead(D, hidden).to(z)
    # Each z_t, and the embedding imagined h blocks later; NaN past the end.
    seen = z.new_full((E, T, 1 + reach, D), torch.nan)
    seen[:, :, 0] = z
    with torch.no_grad():
        for t in range(T - 1):
            far = min(reach, T - 1 - t)
            seen[:, t, 1 : 1 + far] = model.rollout(z[:, t : t + 1], actions[:, t : t + far])
    generator = torch.Generator(z.device).manual_seed(as_seed(seed))

    def error() -> Tensor:
        x, y = _pairs(seen, z, 1024, unit, generator)
        return F.mse_loss(head.head(x), y)

    _standardise(head.head, *_pairs(seen, z, 8192, unit, generator))
    descend(head, error, rate=1e-3, steps=steps)
    return head.requires_grad_(False).eval()


@torch.enable_grad()
def descend(
    part: nn.Module,
    error: Callable[[], Tensor],
    *,
    rate: float,
    steps: int,
    over: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Train a part by Adam with a cosine schedule; `over` iterates over the steps."""
    optimizer = torch.optim.Adam(part.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in over(range(steps)):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
        schedule.step()


def _pairs(
    seen: Tensor, z: Tensor, num: int, unit: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs [num, 3 D] of a DistanceHead and log(1 + steps) [num, 1]."""
    E, T, reach, _ = seen.shape

    def below(limit: Tensor | int) -> Tensor:
        return (torch.rand(num, generator=generator, device=z.device) * limit).long()

    apart = below(T)
    # Starts from which `apart` fits into the episode; imagined over at most the time before them.
    at = below(T - apart)
    ahead = torch.minimum(below(reach), at)
    e = below(E)
    now, goal = seen[e, at - ahead, ahead], z[e, at + apart]
    return torch.cat([now, goal, goal - now], -1), (apart * unit).to(z).log1p().unsqueeze(-1)


def _standardise(head: Head, z: Tensor, y: Tensor) -> None:
    for middle, spread, of in ((head.centre, head.spread, z), (head.middle, head.scale, y)):
        middle.copy_(of.mean(0))
        rounding = 1e-7 * of.abs().mean(0)  # in whatever units
        spread.copy_(of.std(0).clamp_min(rounding).clamp_min(torch.finfo(of.dtype).tiny))


@checked()
def save_head(head: Head | DistanceHead, path: str | Path) -> None:
    """Write a head into one safetensors file for `load_head`, whole or not at all.

    Args:
        head, path: fitted here; a file, which is replaced.
    """
    write_part(head, path, "head", {"config": head.config})


@checked()
def load_head(path: str | Path) -> Head | DistanceHead:
    """Read a head that `save_head` wrote.

    Args:
        path: the file.
    Returns: the head, in eval mode, without gradients of its own.
    Raises: ValueError naming the file if it holds something else.
    """
    kinds = {"Head": Head, "DistanceHead": DistanceHead}
    head, _ = read_part(path, "head", lambda told: kinds[told["class"]](**told["config"]))
    return head


def write_part(part: nn.Module, path: str | Path, what: str, header: dict[str, Any]) -> None:
    """Write a fitted part, with the name of its class."""
    told = json.dumps({"class": type(part).__name__, **header})
    write_atomically(Path(path), as_bytes(part.state_dict(), {what: told})[0])


def read_part(
    path: str | Path, what: str, make: Callable[[Any], PartT]
) -> tuple[PartT, dict[str, Any]]:
    """Read what `write_part` wrote: the part that `make` builds from the header, and the header."""
    state = read_weights(Path(path))
    try:
        header = json.loads(notes_of(Path(path)).get(what, "null"))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            part = make(header)
        part.load_state_dict(state)
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} holds no {what} of this library: {error!r}") from error
    return part.requires_grad_(False).eval(), header
