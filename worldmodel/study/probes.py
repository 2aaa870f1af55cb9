"""Can the true state be read off the embeddings? Linear and MLP probes, and a map."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.heads import fit_head
from worldmodel.study.estimates import Estimate, bootstrap

__all__ = [
    "Guesses",
    "Probe",
    "ProbeScore",
    "principal_components",
    "probe",
    "probe_guesses",
    "score_guesses",
]

_HIDDEN = (128, 128)  # of the network


class Probe(NamedTuple):
    """How much of each quantity's variance a probe explains on held-out embeddings.

    Attributes:
        linear: [Q], R² of the least-squares fit.
        mlp: [Q], R² of a small network.
    """

    linear: Tensor
    mlp: Tensor


class Guesses(NamedTuple):
    """What probes say of embeddings they were not fitted on.

    Attributes:
        constant: [P, Q], the mean of the training quantities, whatever the embedding.
        linear: [P, Q], of the least-squares fit.
        mlp: [P, Q], of a small network.
    """

    constant: Tensor
    linear: Tensor
    mlp: Tensor


class ProbeScore(NamedTuple):
    """How good a probe's guesses of one quantity are.

    Attributes:
        mse: mean squared error in units of `scale`, squared.
        r: Pearson's correlation between guess and truth.
        r2: share of the variance explained.
    """

    mse: Estimate
    r: Estimate
    r2: Estimate


def probe(
    train_z: Tensor, train_y: Tensor, test_z: Tensor, test_y: Tensor, *, seed: int = 0
) -> Probe:
    """Fit probes of `train_y` on `train_z` and score them where they were not fitted.

        R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²,  ȳ the mean over the test set

    Both probes see standardised embeddings and targets. The network has two hidden layers of 128
    and 400 full-batch steps of Adam at 3e-3, enough for its R² to settle on thousands of samples.

    Args:
        train_z: [N, D] embeddings.
        train_y: [N, Q] quantities.
        test_z: [P, D] embeddings of other episodes.
        test_y: [P, Q] quantities.
        seed: of the network's first weights.
    Returns: Probe.
    Raises: ValueError if rows or columns disagree, or there are fewer training rows than D + 1.
    Source: the probes of LeWM, arXiv:2603.19312, Section 5 and Tables 1, 3 and 4.
    """
    if len(train_z) != len(train_y) or len(test_z) != len(test_y):
        raise ValueError(
            f"embeddings and quantities must have the same rows, got {len(train_z)} and "
            f"{len(train_y)} for training, {len(test_z)} and {len(test_y)} for testing"
        )
    if len(train_z) < train_z.shape[1] + 1:
        raise ValueError(
            f"train_z must have at least D + 1 = {train_z.shape[1] + 1} rows, got {len(train_z)}"
        )
    guesses = probe_guesses(train_z, train_y, test_z, seed=seed)
    return Probe(_r_squared(guesses.linear, test_y), _r_squared(guesses.mlp, test_y))


def probe_guesses(train_z: Tensor, train_y: Tensor, test_z: Tensor, *, seed: int = 0) -> Guesses:
    """Fit probes of `train_y` on `train_z`; what they say of `test_z`, and a guess that is blind.

    Args:
        train_z: [N, D] embeddings.
        train_y: [N, Q] quantities.
        test_z: [P, D] embeddings of other episodes.
        seed: of the network's first weights.
    Returns: Guesses.
    Raises: ValueError if there are fewer training rows than D + 1.
    Source: as `probe`.
    """
    if len(train_z) < train_z.shape[1] + 1:
        raise ValueError(
            f"train_z must have at least D + 1 = {train_z.shape[1] + 1} rows, got {len(train_z)}"
        )
    linear = fit_head(train_z, train_y)
    network = fit_head(train_z, train_y, _HIDDEN, seed=seed)
    middle = train_y.mean(0).expand(len(test_z), -1)
    with torch.no_grad():
        return Guesses(middle, linear(test_z), network(test_z))


def score_guesses(
    guess: Tensor, truth: Tensor, episode: Tensor, scale: Tensor, *, seed: int = 0
) -> list[ProbeScore]:
    """Error, correlation and explained variance of each quantity, with intervals over episodes.

        MSE = mean ((ŷ − y) / scale)²,   R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    Args:
        guess: [P, Q], of a probe.
        truth: [P, Q].
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
        found.append(
            ProbeScore(
                bootstrap(sums, _mse, seed=seed),
                bootstrap(sums, _correlation, seed=seed),
                bootstrap(sums, _explained, seed=seed),
            )
        )
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


def _r_squared(predicted: Tensor, truth: Tensor) -> Tensor:
    residual = (predicted - truth).square().sum(0)
    out: Tensor = 1 - residual / (truth - truth.mean(0)).square().sum(0)
    return out


def principal_components(z: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates along the directions of largest variance, and each one's share of it.

    Args:
        z: [N, D].
        num: how many directions, at most D.
    Returns: coordinates [N, num], and fractions of the variance [num].
    """
    values, vectors = torch.linalg.eigh(torch.cov(z.T).reshape(z.shape[1], z.shape[1]))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values[:num] / values.sum().clamp_min(torch.finfo(z.dtype).tiny)
    return (z - z.mean(0)) @ vectors[:, :num], share
