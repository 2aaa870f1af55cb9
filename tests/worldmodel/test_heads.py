"""Heads on embeddings: exact where the truth is linear, honest about distance, whole on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worldmodel import WorldModel, heads


def test_a_linear_head_finds_a_linear_truth() -> None:
    """Least squares in raw units gives back the map, whatever the units of z and y."""
    generator = torch.Generator().manual_seed(0)
    z = 100 * torch.randn(200, 3, generator=generator) + 7
    true = torch.tensor([[1.0, 0.0], [2.0, -3e3], [0.5, 0.0]])
    head = heads.fit_head(z, z @ true + 4)
    torch.testing.assert_close(head(z), z @ true + 4, rtol=1e-4, atol=0.1)
    assert not any(p.requires_grad for p in head.parameters())


def test_a_network_finds_what_no_line_does() -> None:
    """|z| has no linear part; a small network explains nearly all of it."""
    z = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    left = [
        float((heads.fit_head(z, z.abs(), hidden)(z) - z.abs()).square().mean() / z.abs().var())
        for hidden in ((), (32, 32))
    ]
    assert left[0] > 0.9
    assert left[1] < 0.05


class Line(nn.Module):
    """Predicts z + a, but wrongly by a constant: imagined embeddings are not the seen ones."""

    dim, history = 2, 1

    def __init__(self, off: Tensor) -> None:
        super().__init__()
        self.off = off

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        return z + torch.cat([actions, actions * 0], -1) + self.off


class Nothing(nn.Module):
    """No encoder is needed."""

    dim = 2


def test_distance_counts_steps_from_imagined_embeddings() -> None:
    """On a straight walk f is log(1 + steps), also from where the model wrongly imagines to be."""
    # Imagining shifts the second coordinate, which seen embeddings have at 0.
    model = WorldModel(Nothing(), nn.Identity(), Line(torch.tensor([0.0, 0.5]))).eval()
    starts = torch.randn(64, 1, 1, generator=torch.Generator().manual_seed(0))
    walk = starts + torch.arange(11.0).view(1, 11, 1)
    z = torch.cat([walk, walk * 0], -1)
    head = heads.fit_distance(model, z, torch.ones(64, 10, 1), reach=3, unit=5, steps=600)
    now = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]])
    for blocks in (0, 1, 3, 6):
        goal = torch.tensor([float(blocks), 0.0]).expand(3, 2)
        expected = torch.tensor(1.0 + 5 * blocks).log().expand(3)
        torch.testing.assert_close(head(now, goal), expected, rtol=0, atol=0.25)


def test_heads_survive_the_disk(tmp_path: Path) -> None:
    """Both kinds come back with the same answers; a file of something else is named."""
    from safetensors.torch import save_file

    z = torch.randn(40, 3)
    head = heads.fit_head(z, z[:, :2].exp(), (8,))
    distance = heads.DistanceHead(3, (4,))
    for kept, arguments in ((head, (z,)), (distance, (z, z.flip(0)))):
        heads.save_head(kept, tmp_path / "head.safetensors")
        read = heads.load_head(tmp_path / "head.safetensors")
        assert torch.equal(read(*arguments), kept(*arguments))
    save_file({"a": z}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors holds no head"):
        heads.load_head(tmp_path / "other.safetensors")


def test_a_metric_counts_in_steps_of_the_data() -> None:
    """Mixed coordinates that move by 3, 0.1 and 1 a step all move by 1 in the metric."""
    generator = torch.Generator().manual_seed(0)
    mixed, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    steps = torch.randn(50, 40, 3, generator=generator) * torch.tensor([3.0, 0.1, 1.0])
    z = steps.cumsum(1) @ mixed + 5
    metric = heads.fit_metric(z, ridge=1e-9)
    moved = metric(z).diff(dim=1).flatten(0, 1)
    torch.testing.assert_close(moved.T @ moved / len(moved), torch.eye(3), atol=1e-4, rtol=0)
    slow, fast = mixed[1] * 0.1, mixed[0] * 3
    apart = [(metric(z[0, 0] + way) - metric(z[0, 0])).norm().item() for way in (slow, fast)]
    assert apart == pytest.approx([1, 1], rel=0.05)
    assert not any(p.requires_grad for p in metric.parameters())


def test_a_metrics_ridge_bounds_what_hardly_moves() -> None:
    """A direction that never moves gets 1 / sqrt(ridge) of the fastest one's units, not more."""
    z = torch.zeros(2, 30, 2)
    z[..., 0] = 4.0 * torch.arange(30)
    metric = heads.fit_metric(z, ridge=0.01)
    assert (metric(torch.eye(2)) - metric(torch.zeros(2))).diag().tolist() == pytest.approx(
        [(16 * 1.01) ** -0.5, (16 * 0.01) ** -0.5]
    )


def test_says_what_is_wrong() -> None:
    """Too few rows, and episodes no longer than the reach, are named with their sizes."""
    for bad in (torch.ones(2, 3, 4), torch.full((2, 3, 4), torch.nan)):
        with pytest.raises(ValueError, match="z must change along its windows and be finite"):
            heads.fit_metric(bad)
    with pytest.raises(ValueError, match=r"N >= D \+ 1, got \[3, 3\] and \[3, 1\]"):
        heads.fit_head(torch.randn(3, 3), torch.randn(3, 1))
    model = WorldModel(Nothing(), nn.Identity(), Line(torch.zeros(2)))
    with pytest.raises(ValueError, match="T > reach = 5"):
        heads.fit_distance(model, torch.randn(2, 5, 2), torch.randn(2, 4, 1))
