"""Can the true state be read off the embeddings? Linear and MLP probes, and a map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Probe", "principal_components", "probe"]


class Probe(NamedTuple):
    """How much of each quantity's variance a probe explains on held-out embeddings.

    Attributes:
        linear: [Q], R² of the least-squares fit.
        mlp: [Q], R² of a small network.
    """

    linear: Tensor
    mlp: Tensor


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
    centre, spread = train_z.mean(0), train_z.std(0).clamp_min(1e-8)
    middle, scale = train_y.mean(0), train_y.std(0).clamp_min(1e-8)
    z, held_z = (train_z - centre) / spread, (test_z - centre) / spread
    y = (train_y - middle) / scale

    # Ridge of 1e-6 N: a collapsed embedding has no least-squares solution otherwise.
    gram = z.T @ z + 1e-6 * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    linear = held_z @ torch.linalg.solve(gram, z.T @ y)
    network = _fit_network(z, y, seed)
    with torch.no_grad():
        curved = network(held_z)
    return Probe(
        _r_squared(linear * scale + middle, test_y), _r_squared(curved * scale + middle, test_y)
    )


def _fit_network(z: Tensor, y: Tensor, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(z.shape[1], 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(),
            nn.Linear(128, y.shape[1]),
        ).to(z)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    with torch.enable_grad():
        for _ in range(400):
            optimizer.zero_grad()
            F.mse_loss(network(z), y).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


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
