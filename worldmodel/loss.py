"""Losses of a joint-embedding predictive world model: an error, and what keeps from collapse."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.layers import given
from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses, lead

__all__ = ["PLDMTerms", "jepa_loss", "pldm_loss"]

_EPSILON = 1e-4  # inside the root, so that a collapsed coordinate has a gradient


@checked(weight="[0, inf)")
def jepa_loss(
    model: WorldModel, batch: Batch, regularizer: Callable[[Tensor], Tensor], weight: float = 0.09
) -> Losses:
    """Next-embedding error plus a weighted regularizer of the embeddings.

        mean (ẑ_{t+1} − z_{t+1})² + weight · regularizer(z)

    Both sides of the error carry gradient: no stop-gradient, no moving average. The regularizer
    sees [T, B, D], the batch of each time step alone, as released.

    Args:
        model, batch: windows of T ≥ 2 frames, and a history of at least T − 1.
        regularizer: [T, B, D] -> [], for example `sigreg.SIGReg()`.
        weight: λ. Released code has 0.09; success stays high from 0.01 to 0.2 (paper, λ figure).
            The error is a mean over D: summing it instead would divide λ by D.
    Returns: Losses.
    Raises: ValueError if the batch is empty, has fewer than two frames or disagreeing shapes.
    Source: LeWM, arXiv:2603.19312, Eq. 1 and Appendix A.
    """
    z, prediction = _one_step_error(model, batch)
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
    z, prediction = _one_step_error(model, batch, at_least=2)
    return Losses.of(prediction, weight, regularizer(z.transpose(0, 1), batch.actions), z)


def _one_step_error(model: WorldModel, batch: Batch, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Embeddings z [B, T, D] of a batch, and mean (ẑ_{t+1} − z_{t+1})², []."""
    frames, actions = batch
    B, T = lead(frames, "batch.frames")
    if B < at_least or T < 2:
        raise ValueError(
            f"batch.frames must be [B >= {at_least}, T >= 2, ...], got [{B}, {T}, ...]"
        )
    if actions.dim() != 3 or actions.shape[:2] != (B, T):
        raise ValueError(
            f"batch.actions must be [B, T, A] with [B, T] = {[B, T]}, got {list(actions.shape)}"
        )
    z = model.encode(frames)
    return z, F.mse_loss(model.predict(z[:, :-1], actions[:, :-1]), z[:, 1:])


@checked(
    variance="[0, inf)",
    covariance="[0, inf)",
    similarity="[0, inf)",
    time_variance="[0, inf)",
    time_covariance="[0, inf)",
    inverse="[0, inf)",
)
class PLDMTerms(nn.Module):
    """Seven-term PLDM without its prediction error: what stands where SIGReg stands.

        α V + β C + γ S + ζ V_t + ν C_t + μ I

        V   = mean relu(1 − √(Var_b z + ε))          each time step and coordinate, over the batch
        C   = mean_t Σ_{i≠j} Cov_b(z_t)²_ij / D      coordinates of a time step, over the batch
        S   = mean (z_{t+1} − z_t)²                  neighbours in time are alike
        V_t = mean relu(1 − √(Var_t z + ε))          each sample and coordinate, over time
        C_t = mean_b Σ_{i≠j} Cov_t(z_b)²_ij / D      coordinates of a sample, over time
        I   = mean (q(z_t, z_{t+1}) − a_t)²          what was done shows in what came of it

    The defaults are the best of a grid of 256 settings on Push-T, with LeWM's encoder and
    optimiser, by LeWM's authors. While μ is 0, `jepa_loss` takes these terms too.

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
            first, last = nn.Linear(2 * dim, hidden_dim), nn.Linear(hidden_dim, action_dim)
            self.dynamics = nn.Sequential(first, nn.GELU(), last)

    @checked(z="T B D", actions="B S A")
    def forward(self, z: Tensor, actions: Tensor | None = None) -> Tensor:
        """Weighted sum of the terms of z [T, B, D]; actions [B, T, A] for the inverse dynamics."""
        total = z.new_zeros(())
        for name, value in self.terms(z, actions).items():
            total = total + self.weights[name] * value
        return total

    def terms(self, z: Tensor, actions: Tensor | None = None) -> dict[str, Tensor]:
        """Each term whose weight is above 0, before its weight."""
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
            done = actions[:, : len(z) - 1].transpose(0, 1)
            both = torch.cat([z[:-1], z[1:]], dim=-1)
            found["inverse"] = F.mse_loss(self.dynamics(both), done)
        return found


def _hinge(z: Tensor) -> Tensor:
    """How far standard deviations over the first axis fall short of 1, on average."""
    return F.relu(1 - (z.var(0) + _EPSILON).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    """Squared covariances between coordinates over axis −2, summed, over D, mean of the rest."""
    centred = z - z.mean(-2, keepdim=True)
    square = (centred.mT @ centred / max(z.shape[-2] - 1, 1)).square()
    total = square.sum((-1, -2)) - square.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (total / z.shape[-1]).mean()
