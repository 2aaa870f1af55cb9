"""Losses of joint-embedding predictive world models: an error, and terms against collapse."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.goals import exactly, precise
from worldmodel.layers import given
from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses, Observations, lead

__all__ = ["ComposedTerms", "InverseDynamics", "PLDMTerms", "composed_loss", "jepa_loss",
           "pldm_loss", "predictor_loss", "rollout_error", "straightening"]  # fmt: skip

_PLDM = ["variance", "covariance", "similarity", "time_variance", "time_covariance", "inverse"]
_EPSILON = 1e-4  # inside the root, so that a collapsed coordinate has a gradient


@checked(weight="[0, inf)")
def jepa_loss(
    model: WorldModel, batch: Batch, regularizer: Callable[[Tensor], Tensor], weight: float = 0.09
) -> Losses:
    """Next-embedding error plus a weighted regularizer of the embeddings.

        mean (ẑ_{t+1} − z_{t+1})² + weight · regularizer(z)

    Both sides of the error carry gradient, without stop-gradient or moving average. The regularizer
    gets [T, B, D], the batch of each time step alone, as released.

    Args:
        model, batch: windows of T ≥ 2 frames, and a history of at least T − 1.
        regularizer: [T, B, D] -> [], for example `sigreg.SIGReg()`.
        weight: λ. Released code has 0.09; success stays high from 0.01 to 0.2 (paper, λ figure).
    Returns: Losses.
    Raises: ValueError if the batch is empty, has fewer than two frames or disagreeing shapes.
    Source: LeWM, arXiv:2603.19312, Eq. 1 and Appendix A.
    """
    z, _, prediction = _one_step_error(model, batch)
    return Losses.of(prediction, weight, regularizer(z.transpose(0, 1)), z)


@checked(weight="[0, inf)")
def pldm_loss(
    model: WorldModel, batch: Batch, regularizer: "PLDMTerms", weight: float = 1.0
) -> Losses:
    """Next-embedding error plus PLDM's terms: mean (ẑ_{t+1} − z_{t+1})² + weight · terms(z, a).

    Args:
        model, batch: a history of T − 1; B ≥ 2 windows of T ≥ 2 frames, 3 for terms over time.
        regularizer, weight: the terms, and of all together; 1 keeps the published weights.
    Returns: Losses.
    Raises: ValueError if shapes disagree, or B or T is too small for a variance.
    """
    z, actions, prediction = _one_step_error(model, batch, at_least=2)
    return Losses.of(prediction, weight, regularizer(z.transpose(0, 1), actions), z)


def _one_step_error(
    model: WorldModel, batch: Batch, at_least: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings z [B, T, D] and actions of a batch, and mean (ẑ_{t+1} − z_{t+1})², []."""
    frames, actions = _windows(batch, at_least)
    z = model.encode(frames)
    return z, actions, F.mse_loss(model.predict(z[:, :-1], actions[:, :-1]), z[:, 1:])


def _windows(batch: Batch, at_least: int = 1) -> tuple[Observations, Tensor]:
    """Frames [B, T, ...] and actions [B, T, A] of a batch, which must fit each other."""
    frames, actions = batch.tensors()
    B, T = lead(frames, "batch.frames")
    if B < at_least or T < 2:
        raise ValueError(
            f"batch.frames must be [B >= {at_least}, T >= 2, ...], got [{B}, {T}, ...]"
        )
    if actions.dim() != 3 or actions.shape[:2] != (B, T):
        raise ValueError(
            f"batch.actions must be [B, T, A] with [B, T] = {[B, T]}, got {list(actions.shape)}"
        )
    return frames, actions


@checked(weight="[0, inf)")
def predictor_loss(
    model: WorldModel, batch: Batch, metric: Callable[[Tensor], Tensor], weight: float = 1.0
) -> Losses:
    """Errors of a predictor on the embeddings of a frozen encoder, in a metric.

        mean (M ẑ_{t+1} − M z_{t+1})² + weight · (the same of the rollout of the whole window)

    In the embeddings' own units errors in what moves slowly count for little, and plans in the
    metric are as wrong as those.

    Args:
        model, batch: windows of T ≥ 2 embeddings [B, T, D] in place of frames, such as
            `Windows.on(device, embed)` gives, and a history of at least T − 1.
        metric: M, [..., D] -> [..., Q], such as `heads.fit_metric`'s.
        weight: of the rollout's error.
    Returns: Losses, with the rollout's error in `terms`; `regularization` is 0.
    Raises: as `jepa_loss`.
    """
    z, actions = _windows(batch)
    if not isinstance(z, Tensor) or z.shape[2:] != (model.encoder.dim,):
        came = list(z.shape) if isinstance(z, Tensor) else f"observations {sorted(z)}"
        raise ValueError(f"batch.frames must be embeddings [B, T, {model.encoder.dim}], got {came}")
    step = model.predict(z[:, :-1], actions[:, :-1])
    path = model.rollout(z[:, :1], actions[:, : z.shape[1] - 1])
    with exactly(z):  # autocast would round away what hardly changes
        known = metric(precise(z[:, 1:]))
        error, far = (F.mse_loss(metric(precise(x)), known) for x in (step, path))
    losses = Losses.of(error, 0.0, torch.zeros_like(error), z)
    return losses._replace(total=error + weight * far, terms={"rollout": far.detach()})


@checked()
class InverseDynamics(nn.Module):
    """Predict the action from its effect: mean (q(z_t, z_{t+1}) − a_t)².

    It keeps in the embedding what actions move, which prediction alone may drop.

    Args:
        dim, action_dim, hidden_dim: D and A, and width of q, which has one hidden layer.
    Shapes: z [B, T, D], actions [B, T, A] -> [].
    Source: PLDM, arXiv:2502.14819, Section 3.
    """

    def __init__(self, dim: int, action_dim: int, hidden_dim: int = 512) -> None:
        super().__init__()
        first, last = nn.Linear(2 * dim, hidden_dim), nn.Linear(hidden_dim, action_dim)
        self.network = nn.Sequential(first, nn.GELU(), last)

    @checked(z="B T D", actions="B S A")
    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """The error of a window's actions but the last, []."""
        guess = self.network(torch.cat([z[:, :-1], z[:, 1:]], dim=-1))
        return F.mse_loss(guess, actions[:, : z.shape[1] - 1])


@checked(z="B T D", actions="B S A")
def rollout_error(model: WorldModel, z: Tensor, actions: Tensor) -> Tensor:
    """Mean squared error of the rollout from a window's first frame to its last, [].

    z [B, T, D], actions [B, T, A]. It trains the predictor for the many steps of a plan.
    """
    return F.mse_loss(model.rollout(z[:, :1], actions[:, : z.shape[1] - 1]), z[:, 1:])


@checked(z="B T D")
def straightening(z: Tensor) -> Tensor:
    """1 − mean cosine of neighbouring steps of z [B, T ≥ 3, D]: 0 on a straight path, []."""
    steps = z.diff(dim=1)
    return 1 - F.cosine_similarity(steps[:, :-1], steps[:, 1:], dim=-1).mean()


@checked()
class ComposedTerms(nn.Module):
    """A regularizer and weighted further terms: the third argument of `composed_loss`.

    Args:
        regularizer: embeddings [N, D] or [T, N, D] -> [], for example `sigreg.SIGReg()`.
        weights: by name, "inverse" (`InverseDynamics`), "rollout" (`rollout_error`) and "straight"
            (`straightening`).
        dim, action_dim: D and A, for the inverse dynamics.
        pooled: the regularizer gets all embeddings of a batch at once, [T · B, D], so the frames of
            one window are samples too; not each time step alone as published.
    Raises: ValueError if a weight is negative or not finite, or has another name.
    """

    def __init__(
        self,
        regularizer: nn.Module,
        weights: Mapping[Any, float],
        *,
        dim: int,
        action_dim: int,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        known = ("inverse", "rollout", "straight")
        if not all(name in known and 0 <= w < float("inf") for name, w in weights.items()):
            rule = f"finite, not negative and of {', '.join(known)}"
            raise ValueError(f"weights must be {rule}, got {dict(weights)}")
        self.regularizer, self.weights, self.pooled = regularizer, dict(weights), pooled
        self.inverse: Any = InverseDynamics(dim, action_dim) if weights.get("inverse") else None

    def forward(self, model: WorldModel, z: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """The unweighted terms with a weight above 0, of z [B, T, D] and actions [B, T, A]."""
        each: dict[str, Callable[[], Tensor]] = {
            "inverse": lambda: self.inverse(z, actions),
            "rollout": lambda: rollout_error(model, z, actions),
            "straight": lambda: straightening(z),
        }
        return {name: each[name]() for name, weight in self.weights.items() if weight > 0}


@checked(weight="[0, inf)")
def composed_loss(
    model: WorldModel, batch: Batch, terms: ComposedTerms, weight: float = 0.09
) -> Losses:
    """`jepa_loss` plus Σ weight · term: further properties that the embedding should have.

    Args:
        model, batch: as `jepa_loss`.
        terms: the regularizer and the further terms.
        weight: λ, of the regularizer alone.
    Returns: Losses, with `terms`.
    Raises: as `jepa_loss`.
    """
    z, actions, prediction = _one_step_error(model, batch)
    seen = z.flatten(0, 1) if terms.pooled else z.transpose(0, 1)
    losses = Losses.of(prediction, weight, terms.regularizer(seen), z)
    found = terms(model, z, actions)
    total = sum((terms.weights[name] * value for name, value in found.items()), losses.total)
    return losses._replace(total=total, terms={k: v.detach() for k, v in found.items()})


@checked(**dict.fromkeys(_PLDM, "[0, inf)"))
class PLDMTerms(nn.Module):
    """The terms of seven-term PLDM without its prediction error, in place of SIGReg.

        α V + β C + γ S + ζ V_t + ν C_t + μ I

        V   = mean relu(1 − √(Var_b z + ε))          each time step and coordinate, over the batch
        C   = mean_t Σ_{i≠j} Cov_b(z_t)²_ij / D      coordinates of a time step, over the batch
        S   = mean (z_{t+1} − z_t)²                  neighbours in time are alike
        V_t = mean relu(1 − √(Var_t z + ε))          each sample and coordinate, over time
        C_t = mean_b Σ_{i≠j} Cov_t(z_b)²_ij / D      coordinates of a sample, over time
        I   = mean (q(z_t, z_{t+1}) − a_t)²          the action, predicted from its effect

    LeWM's authors found the defaults on Push-T, the best of a grid of 256 settings with LeWM's
    encoder and optimiser. While μ is 0, `jepa_loss` accepts these terms too.

    Args:
        variance, covariance, similarity, time_variance, time_covariance: α, β, γ, ζ, ν.
        inverse: μ; above 0 it needs the next two, and the optimiser its network's parameters.
        dim, action_dim, hidden_dim: D and A, and the width of q, which has one hidden layer.
    Shapes: z [T, B, D], actions [B, T, A] -> [].
    Raises: ValueError if a weight is negative, or `inverse` comes without its sizes.
    Source: Sobal et al., arXiv:2502.14819, Section 3; weights of LeWM, arXiv:2603.19312, Appendix.
    """

    def __init__(
        self,
        variance: float = 18.0,
        covariance: float = 12.0,
        similarity: float = 0.2,
        time_variance: float = 0.7,
        time_covariance: float = 0.0,
        inverse: float = 0.0,
        *,
        dim: int | None = None,
        action_dim: int | None = None,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__()
        self.weights: dict[str, float] = given(locals(), "dim", "action_dim", "hidden_dim")
        self.dynamics: nn.Module | None = None
        if inverse > 0:
            if dim is None or action_dim is None:
                raise ValueError(f"inverse > 0 needs dim and action_dim, got {dim}, {action_dim}")
            self.dynamics = InverseDynamics(dim, action_dim, hidden_dim)

    @checked(z="T B D", actions="B S A")
    def forward(self, z: Tensor, actions: Tensor | None = None) -> Tensor:
        """Weighted sum of the terms of z [T, B, D]; actions [B, T, A] for the inverse dynamics."""
        found = self.terms(z, actions)
        return sum((self.weights[name] * value for name, value in found.items()), z.new_zeros(()))

    def terms(self, z: Tensor, actions: Tensor | None = None) -> dict[str, Tensor]:
        """The unweighted terms with a weight above 0."""
        each: dict[str, Callable[[], Tensor]] = {
            "variance": lambda: _hinge(z.transpose(0, 1)),
            "covariance": lambda: _off_diagonal(z),
            "similarity": lambda: z.diff(dim=0).square().mean(),
            "time_variance": lambda: _hinge(z),
            "time_covariance": lambda: _off_diagonal(z.transpose(0, 1)),
        }
        found = {name: term() for name, term in each.items() if self.weights[name] > 0}
        if self.dynamics is not None:
            if actions is None:
                raise ValueError("the inverse dynamics need actions [B, T, A], got None")
            found["inverse"] = self.dynamics(z.transpose(0, 1), actions)
        return found


def _hinge(z: Tensor) -> Tensor:
    """Mean amount by which standard deviations over the first axis fall below 1."""
    return F.relu(1 - (z.var(0) + _EPSILON).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    """Mean over the rest of Σ cov² / D between coordinates, with covariances over axis −2."""
    centred = z - z.mean(-2, keepdim=True)
    square = (centred.mT @ centred / max(z.shape[-2] - 1, 1)).square()
    total = square.sum((-1, -2)) - square.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (total / z.shape[-1]).mean()
