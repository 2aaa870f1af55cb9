"""Can the true state be read off the embeddings? Linear and MLP probes, and a map.

Letters: N training rows, P other rows, D embedding dims, Q quantities.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.heads import fit_head
from worldmodel.study.estimates import Estimate, bootstrap

__all__ = ["Guesses", "ProbeScore", "principal_components", "probe_guesses", "score_guesses"]


class Guesses(NamedTuple):
    """What probes say of embeddings they were not fitted on."""

    constant: Tensor  #: [P, Q], the mean of the training quantities, whatever the embedding.
    linear: Tensor  #: [P, Q], of the least-squares fit.
    mlp: Tensor  #: [P, Q], of a small network.


class ProbeScore(NamedTuple):
    """How good a probe's guesses of one quantity are."""

    mse: Estimate  #: Mean squared error in units of `scale`, squared.
    r: Estimate  #: Pearson's correlation between guess and truth.
    r2: Estimate  #: Share of the variance explained.


def probe_guesses(train_z: Tensor, train_y: Tensor, test_z: Tensor, *, seed: int = 0) -> Guesses:
    """Fit probes of `train_y` on `train_z`; what they say of `test_z`, and a guess that is blind.

    Both probes see standardised embeddings and targets. The network has two hidden layers of 128
    and the 400 full-batch steps of `heads.fit_head`.

    Args:
        train_z, train_y: [N, D] embeddings and [N, Q] quantities.
        test_z: [P, D] embeddings of other episodes.
        seed: of the network's first weights.
    Returns: Guesses.
    Raises: ValueError if rows disagree, or there are fewer training rows than D + 1.
    Source: the probes of LeWM, arXiv:2603.19312, Section 5 and Tables 1, 3 and 4.
    """
    linear, network = fit_head(train_z, train_y), fit_head(train_z, train_y, (128, 128), seed=seed)
    middle = train_y.mean(0).expand(len(test_z), -1)
    with torch.no_grad():
        return Guesses(middle, linear(test_z), network(test_z))


def score_guesses(
    guess: Tensor, truth: Tensor, episode: Tensor, scale: Tensor, *, seed: int = 0
) -> list[ProbeScore]:
    """Error, correlation and explained variance of each quantity, with intervals over episodes.

        MSE = mean ((ŷ − y) / scale)²,   R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    Args:
        guess, truth: [P, Q], of a probe and as it was.
        episode: [P], int64, which episode a row is of.
        scale: [Q], the unit of the errors; standard deviations of the training quantities make
            the blind guess score about 1.
        seed: of the bootstrap.
    Returns: one ProbeScore per quantity; r is NaN where guess or truth do not vary, R² where the
        truth does not.
    Raises: ValueError if shapes disagree.
    """
    if guess.shape != truth.shape or guess.dim() != 2 or episode.shape != truth.shape[:1]:
        raise ValueError(
            "guess and truth must be [P, Q] and episode [P], got "
            f"{list(guess.shape)}, {list(truth.shape)} and {list(episode.shape)}"
        )
    _, index = episode.unique(return_inverse=True)
    found = []
    for column in range(truth.shape[1]):
        unit = float(scale[column].double().clamp_min(1e-8))
        middle = truth[:, column].double().mean()
        y = (truth[:, column].double() - middle) / unit
        x = (guess[:, column].double() - middle) / unit
        rows = torch.stack([torch.ones_like(y), y, x, y * y, x * x, x * y], dim=1)
        sums = rows.new_zeros(int(index.max()) + 1, 6).index_add_(0, index, rows)
        figures = (_mse, _correlation, _explained)
        found.append(ProbeScore(*(bootstrap(sums, figure, seed=seed) for figure in figures)))
    return found


def _mse(total: Tensor) -> Tensor:
    n, _, _, yy, xx, xy = total.unbind(-1)
    return (yy - 2 * xy + xx) / n


def _explained(total: Tensor) -> Tensor:
    n, y, _, yy, xx, xy = total.unbind(-1)
    # Where the truth does not vary its variance is rounding, of about 1e-16 in these units.
    variance = yy - y * y / n
    return torch.where(variance > 1e-12 * n, 1 - (yy - 2 * xy + xx) / variance, math.nan)


def _correlation(total: Tensor) -> Tensor:
    n, y, x, yy, xx, xy = total.unbind(-1)
    of_y, of_x = yy - y * y / n, xx - x * x / n
    varies = (of_y > 1e-12 * n) & (of_x > 1e-12 * n)
    return torch.where(varies, (xy - x * y / n) / (of_y * of_x).clamp_min(1e-300).sqrt(), math.nan)


def principal_components(z: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates of z [N, D] along the `num` directions of largest variance, and their shares.

    Returns: coordinates [N, num], and fractions of the variance [num].
    """
    values, vectors = torch.linalg.eigh(torch.cov(z.T).reshape(z.shape[1], z.shape[1]))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values[:num] / values.sum().clamp_min(torch.finfo(z.dtype).tiny)
    return (z - z.mean(0)) @ vectors[:, :num], share
