"""LeJEPA: the views of an image agree, and their embeddings are an isotropic Gaussian."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sigreg import _arguments as require
from sigreg.reference import full_precision

__all__ = ["LeJEPALoss", "LeJEPALosses", "additive_weight", "invariance_loss"]


class LeJEPALosses(NamedTuple):
    """Result of `LeJEPALoss`."""

    total: Tensor  #: [], what to minimize
    invariance: Tensor  #: [], mean squared distance of the views from their centre
    regularizer: Tensor  #: [], before weighting


def invariance_loss(views: Tensor, centre: Tensor) -> Tensor:
    """Mean over v, n, d of (z_vnd − c_nd)², the squared distance of views from their centre.

    For two views around their own mean this is a quarter of mean (z_1 − z_2)².

    Args:
        views: [V, N, D].
        centre: [N, D].
    Returns: [], float32 (float64 for float64 views).
    Raises: TypeError or ValueError on other types and shapes.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 2.
    """
    require.samples(views, "views")
    require.samples(centre, "centre")
    if views.ndim != 3 or centre.shape != views.shape[1:]:
        got = f"{list(views.shape)} and {list(centre.shape)}"
        raise ValueError(f"views must be [V, N, D] and centre [N, D], got {got}")
    return (full_precision(views) - full_precision(centre)).square().mean()


def additive_weight(weight: float) -> float:
    """Convert λ of the convex form to the additive λ with the same minimizers: λ / (1 − λ).

    The convex total is (1 − λ) times the additive one. This changes plain SGD, but not Adam.

    Args:
        weight: λ of (1 − λ) · invariance + λ · regularizer, in [0, 1).
    Returns: λ of invariance + λ · regularizer.
    Raises: ValueError if `weight` is outside [0, 1).
    """
    require.number("weight", weight, "[0, 1)")
    return weight / (1 - weight)


class LeJEPALoss(nn.Module):
    """Multi-view self-supervised loss without teacher, stop-gradient or negatives.

        convention="convex":    (1 − λ) · invariance + λ · regularizer
        convention="additive":  invariance + λ · regularizer

    Both forms are published with the name λ; `additive_weight` converts. The loss pulls all views
    to the mean of the global views. The regularizer tests each view alone and averages.

    Args:
        regularizer: any function [..., N, D] -> [] that averages over leading dims, as `SIGReg()`.
        weight: λ. 0.05 is the paper's, for the convex form.
        convention: "convex" (LeJEPA, lightly) or "additive" (LeWM, stable-pretraining).
        pool_views: test all views as one batch of V·N samples, which scores V times as much.
    Shape: global_views [Vg, N, D], local_views [Vl, N, D] -> LeJEPALosses.
    Raises: ValueError on an argument outside its range, no global view, disagreeing shapes.
    Source: LeJEPA, arXiv:2511.08544, Algorithm 2 and Section 5.
    """

    def __init__(
        self,
        regularizer: Callable[[Tensor], Tensor],
        weight: float = 0.05,
        *,
        convention: Literal["convex", "additive"] = "convex",
        pool_views: bool = False,
    ) -> None:
        super().__init__()
        require.kind("regularizer", regularizer, callable)
        require.choice("convention", convention, ("convex", "additive"))
        require.kind("pool_views", pool_views, bool)
        require.number("weight", weight)
        if convention == "convex" and weight > 1:
            raise ValueError(f"weight must be in [0, 1] for the convex form, got {weight}")
        self.regularizer, self.weight = regularizer, weight
        self.convention, self.pool_views = convention, pool_views

    def forward(self, global_views: Tensor, local_views: Tensor | None = None) -> LeJEPALosses:
        """Losses of the global views, whose mean is the centre, and of local views if given."""
        require.samples(global_views, "global_views")
        if global_views.ndim != 3:
            raise ValueError(f"global_views must be [V, N, D], got {list(global_views.shape)}")
        views = global_views
        if local_views is not None:
            require.samples(local_views, "local_views")
            (n, d), shape = global_views.shape[1:], list(local_views.shape)
            if local_views.ndim != 3 or shape[1:] != [n, d]:
                raise ValueError(
                    f"local_views must be [V, {n}, {d}] to match global_views, got {shape}"
                )
            views = torch.cat([global_views, local_views])
        invariance = invariance_loss(views, full_precision(global_views).mean(0))
        regularizer = self.regularizer(views.flatten(0, 1) if self.pool_views else views)
        keep = 1 - self.weight if self.convention == "convex" else 1.0
        return LeJEPALosses(keep * invariance + self.weight * regularizer, invariance, regularizer)
