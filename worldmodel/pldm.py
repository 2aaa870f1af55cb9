"""PLDM: the parts of LeWM, kept from collapse by terms on variance, covariance and time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.loss import one_step_error
from worldmodel.model import WorldModel
from worldmodel.records import Batch, Losses

__all__ = ["PLDMTerms", "pldm_loss"]

_EPSILON = 1e-4  # inside the root, so that a collapsed coordinate has a gradient


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
    optimiser, by LeWM's authors. `jepa_loss(model, batch, PLDMTerms(), 1.0)` is the same loss as
    `pldm_loss` while μ is 0.

    Args:
        variance: α.
        covariance: β.
        similarity: γ.
        time_variance: ζ.
        time_covariance: ν.
        inverse: μ; above 0 it needs the next two, and its network's parameters belong to the
            optimiser.
        dim: D, for the inverse dynamics.
        action_dim: A, for the inverse dynamics.
        hidden_dim: width of q, a network with one hidden layer.
    Shapes: z [T, B, D], actions [B, T, A] -> [].
    Raises: ValueError if a weight is negative, or `inverse` comes without its sizes.
    Source: Sobal et al., arXiv:2502.14819, Section 3; weights of LeWM, arXiv:2603.19312,
        Appendix (baselines).
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
        self.weights = {
            "variance": variance,
            "covariance": covariance,
            "similarity": similarity,
            "time_variance": time_variance,
            "time_covariance": time_covariance,
            "inverse": inverse,
        }
        if min(self.weights.values()) < 0:
            raise ValueError(f"weights must not be negative, got {self.weights}")
        self.dynamics: nn.Module | None = None
        if inverse > 0:
            if dim is None or action_dim is None:
                raise ValueError(f"inverse > 0 needs dim and action_dim, got {dim}, {action_dim}")
            self.dynamics = nn.Sequential(
                nn.Linear(2 * dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, action_dim)
            )

    def forward(self, z: Tensor, actions: Tensor | None = None) -> Tensor:
        """Weighted sum of the terms of z [T, B, D]; actions [B, T, A] for the inverse dynamics."""
        total = z.new_zeros(())
        for name, value in self.terms(z, actions).items():
            total = total + self.weights[name] * value
        return total

    def terms(self, z: Tensor, actions: Tensor | None = None) -> dict[str, Tensor]:
        """Each term whose weight is above 0, before its weight."""
        wanted = {name for name, weight in self.weights.items() if weight > 0}
        found = {}
        if "variance" in wanted:
            found["variance"] = _hinge(z.transpose(0, 1))
        if "covariance" in wanted:
            found["covariance"] = _off_diagonal(z)
        if "similarity" in wanted:
            found["similarity"] = z.diff(dim=0).square().mean()
        if "time_variance" in wanted:
            found["time_variance"] = _hinge(z)
        if "time_covariance" in wanted:
            found["time_covariance"] = _off_diagonal(z.transpose(0, 1))
        if self.dynamics is not None:
            if actions is None:
                raise ValueError("the inverse dynamics need actions [B, T, A], got None")
            both = torch.cat([z[:-1], z[1:]], dim=-1)
            done = actions[:, : len(z) - 1].transpose(0, 1)
            found["inverse"] = F.mse_loss(self.dynamics(both), done)
        return found


def _hinge(z: Tensor) -> Tensor:
    """How far standard deviations over the first axis fall short of 1, on average."""
    return F.relu(1 - (z.var(0) + _EPSILON).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    """Squared covariances between coordinates over axis −2, summed, over D, mean of the rest."""
    centred = z - z.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / max(z.shape[-2] - 1, 1)
    square = covariance.square()
    total = square.sum((-1, -2)) - square.diagonal(dim1=-2, dim2=-1).sum(-1)
    out: Tensor = (total / z.shape[-1]).mean()
    return out


def pldm_loss(
    model: WorldModel, batch: Batch, regularizer: PLDMTerms, weight: float = 1.0
) -> Losses:
    """Next-embedding error plus PLDM's terms.

        mean (ẑ_{t+1} − z_{t+1})² + weight · regularizer(z, a)

    Args:
        model: WorldModel whose history is at least T − 1.
        batch: Batch with B ≥ 2 windows of T ≥ 2 frames (T ≥ 3 for terms over time).
        regularizer: PLDMTerms.
        weight: of all its terms together; 1 keeps the published ones.
    Returns: Losses.
    Raises: ValueError if shapes disagree, or B or T is too small for a variance.
    Source: Sobal et al., arXiv:2502.14819, Section 3.
    """
    z, prediction = one_step_error(model, batch, at_least=2)
    terms = regularizer(z.transpose(0, 1), batch.actions)
    return Losses(prediction + weight * terms, prediction.detach(), terms.detach(), z.detach())
