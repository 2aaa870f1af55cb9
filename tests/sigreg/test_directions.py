"""Directions: uniform, unit, and nothing but a function of (seed, step)."""

import math

import pytest
import torch

from sigreg import random_directions
from sigreg.directions import HASH, hash_start


def test_rows_have_norm_one() -> None:
    """Every row is a unit vector, in one dimension too, where a cosine alone decides."""
    for dim in (1, 2, 3, 192):
        norm = random_directions(5000, dim, seed=3, step=9).norm(dim=1)
        torch.testing.assert_close(norm, torch.ones(5000))


def test_the_hash_is_pinned() -> None:
    """The numbers of a seed and step never change between releases."""
    rows = random_directions(2, 3, seed=7, step=11)
    expected = torch.tensor(
        [
            [-0.8709650, -0.0078179, -0.4912828],
            [-0.8431448, 0.1037083, -0.5275902],
        ]
    )
    torch.testing.assert_close(rows, expected, rtol=0, atol=2e-7)


def test_rows_do_not_depend_on_how_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of any size, and beside any number of others, a row is the same."""
    for dim in (1, 6, 7):
        whole = random_directions(50, dim, seed=3, step=9)
        torch.testing.assert_close(random_directions(20, dim, seed=3, step=9), whole[:20])
        with monkeypatch.context() as patch:
            patch.setattr("sigreg.directions._BLOCK", 16)
            torch.testing.assert_close(random_directions(50, dim, seed=3, step=9), whole)


def test_step_may_live_in_a_tensor() -> None:
    """A step counter that is a tensor draws what its integer draws."""
    a = random_directions(4, 5, seed=1, step=2**40 + 3)
    b = random_directions(4, 5, seed=1, step=torch.tensor(2**40 + 3))
    assert torch.equal(a, b)


def test_any_integer_is_a_seed() -> None:
    """Seeds are taken modulo 2⁶⁴, negative and huge ones alike."""
    a, b, c = (random_directions(3, 4, seed=s, step=0) for s in (-1, 2**64 - 1, 2**70))
    assert torch.equal(a, b)
    assert torch.equal(c, random_directions(3, 4, seed=0, step=0))


def test_seeds_and_steps_are_unrelated() -> None:
    """Neighbouring seeds and steps share no direction and no correlation."""
    base = random_directions(4000, 8, seed=0, step=0)
    for seed, step in ((0, 1), (1, 0), (1, 1), (-1, 0), (0, 2**32), (2**32, 0)):
        other = random_directions(4000, 8, seed=seed, step=step)
        # Σ of 4000 independent cosines has standard deviation √(4000/8).
        assert abs(float((base * other).sum())) < 5 * math.sqrt(4000 / 8)
        assert float((base - other).norm(dim=1).min()) > 1e-3


def test_directions_are_uniform() -> None:
    """Moments up to the fourth are those of the uniform law on the sphere."""
    for dim in (2, 3, 7):
        a = random_directions(200_000, dim, seed=5, step=0).double()
        assert float(a.mean(0).abs().max()) < 5 / math.sqrt(200_000 * dim)
        second = a.T @ a / 200_000
        torch.testing.assert_close(
            second, torch.eye(dim, dtype=torch.float64) / dim, atol=4e-3, rtol=0
        )
        fourth = (a**4).mean(0)
        expected = torch.full((dim,), 3 / (dim * (dim + 2)), dtype=torch.float64)
        torch.testing.assert_close(fourth, expected, atol=4e-3, rtol=0)
        # In rotated axes too: a hash that favoured the axes would show here.
        turned = a.sum(1) / math.sqrt(dim)
        assert float((turned**4).mean()) == pytest.approx(3 / (dim * (dim + 2)), abs=4e-3)


@pytest.mark.parametrize(("num", "dim"), [(7, 7), (20, 7), (3, 7), (1, 1), (5, 1)])
def test_orthogonal_blocks(num: int, dim: int) -> None:
    """Each block of D consecutive rows is orthonormal, the last one as far as it goes."""
    a = random_directions(num, dim, seed=0, step=4, sampler="orthogonal")
    assert a.shape == (num, dim)
    for block in a.split(dim):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)


def test_orthogonal_rows_are_uniform() -> None:
    """A single row of an orthogonal block is uniform on the sphere, up to its sign."""
    rows = torch.cat(
        [random_directions(300, 3, seed=s, step=0, sampler="orthogonal") for s in range(100)]
    ).double()
    second = rows.T @ rows / len(rows)
    torch.testing.assert_close(second, torch.eye(3, dtype=torch.float64) / 3, atol=1e-6, rtol=0)
    assert float((rows**4).mean()) == pytest.approx(1 / 5, abs=5e-3)


def test_orthogonal_directions_sketch_better() -> None:
    """At equal M the mean over orthogonal directions varies less from draw to draw."""
    z = torch.randn(256, 32) * torch.linspace(0.3, 1.7, 32)

    def spread(sampler: str) -> float:
        rows = [random_directions(32, 32, seed=0, step=s, sampler=sampler) for s in range(200)]
        variance = torch.stack([(z @ a.T).var(0).mean() for a in rows])
        return float(variance.std())

    assert spread("orthogonal") < 0.05 * spread("gaussian")


def test_what_is_refused() -> None:
    """Counts below one and unknown samplers are errors that name themselves."""
    with pytest.raises(ValueError, match="num and dim must be at least 1, got 0 and 3"):
        random_directions(0, 3, seed=0, step=0)
    with pytest.raises(ValueError, match='sampler must be "gaussian" or "orthogonal", got \'q\''):
        random_directions(1, 3, seed=0, step=0, sampler="q")


def test_the_hash_on_pythons_integers() -> None:
    """Written out on unbounded integers, the first counter's bits are those the tensors hold."""
    weyl, mix_a, mix_b = HASH

    def wrap(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    def scramble(value: int) -> int:
        value = wrap((value ^ (value >> 30)) * mix_a)
        value = wrap((value ^ (value >> 27)) * mix_b)
        return value ^ (value >> 31)

    seed, step = 5, 6
    stream = scramble(wrap((step + hash_start(seed)) * mix_b)) + weyl
    row = []
    for m in range(2):
        bits = scramble(wrap(m * weyl + stream))
        assert 0 <= bits < 2**63
        radius = math.sqrt(-2 * math.log(((bits >> 40) + 0.5) / 2**23))
        angle = 2 * math.pi * ((bits & 0x7FFFFF) + 0.5) / 2**23
        row.append([math.cos(angle), math.sin(angle)])
        assert radius > 0
    torch.testing.assert_close(
        random_directions(2, 2, seed=5, step=6), torch.tensor(row), atol=1e-6, rtol=0
    )
