"""Directions: uniform, unit, and nothing but a function of (seed, step)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sigreg import random_directions
from sigreg.directions import (
    HASH,
    SAMPLERS,
    Sketch,
    _by_cholesky,
    _orthonormal,
    draw,
    gaussian_rows,
    hash_start,
    quantiles,
    random_rotation,
)

from .backends import CUDA, WHY_NOT


def test_rows_have_norm_one() -> None:
    """Every row is a unit vector, in one dimension too, where a cosine alone decides."""
    for dim in (1, 2, 3, 192):
        norm = random_directions(5000, dim, seed=3, step=9).norm(dim=1)
        torch.testing.assert_close(norm, torch.ones(5000))


def test_rows_are_exact_in_bfloat16_and_the_scale_makes_them_unit() -> None:
    """Whatever the sampler, rows are bfloat16 and scale · rows is a unit vector to float32."""
    layer = Sketch(300, seed=3)
    for sampler in SAMPLERS:
        layer.sampler = sampler
        for dim in (1, 2, 7, 192):
            rows, scale = layer.draw(torch.empty(1, dim))
            assert (rows.dtype, scale.dtype) == (torch.bfloat16, torch.float32)
            norm = rows.double().norm(dim=1) * scale.double()
            assert float((norm - 1).abs().max()) < 2**-24


def test_the_hash_is_pinned() -> None:
    """The numbers of a seed and step never change between releases."""
    rows, scale = Sketch(2, seed=7).draw(torch.empty(1, 6))
    expected = [
        [0.0712890625, 1.1328125, -0.515625, 0.83984375, 0.10595703125, -0.7265625],
        [-0.921875, -0.0283203125, 0.34375, 1.40625, -0.32421875, -0.1708984375],
    ]
    assert rows.tolist() == expected
    torch.testing.assert_close(scale, 1 / rows.float().norm(dim=1), rtol=1e-6, atol=0)


def test_the_table_is_the_normal_laws() -> None:
    """Its 2¹⁶ entries are odd around the middle, ascending, pinned, and have the law's moments."""
    table = quantiles(torch.device("cpu")).double()
    assert torch.equal(table, -table.flip(0))
    assert (table.diff() >= 0).all()
    assert float(table[1 << 15]) == 2**-12
    assert int((table * 4096).abs().sum()) == 214_179_106
    assert float(table.square().mean()) == pytest.approx(1, abs=1e-4)
    assert float((table**4).mean()) == pytest.approx(3, rel=5e-4)
    assert float((table**6).mean()) == pytest.approx(15, rel=4e-3)


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
    """Each block of D rows is orthogonal up to bfloat16, the last one as far as it goes."""
    a = random_directions(num, dim, seed=0, step=4, sampler="orthogonal")
    assert a.shape == (num, dim)
    for block in a.split(dim):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=2**-8, rtol=0)
    whole = random_directions(num + dim, dim, seed=0, step=4, sampler="orthogonal")
    assert torch.equal(a, whole[:num])


@pytest.mark.parametrize("orthonormal", [_by_cholesky, _orthonormal])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e11])
def test_orthonormal_rows_of_any_matrix(
    orthonormal: Callable[[Tensor], Tensor], condition: float
) -> None:
    """Rows are those of Gram and Schmidt to float64, however near to singular the matrix is."""
    g = torch.randn(40, 40, dtype=torch.float64)
    g[7] = g[:7].sum(0) + g[7] / condition
    q = orthonormal(g)
    torch.testing.assert_close(q @ q.T, torch.eye(40, dtype=torch.float64), atol=1e-9, rtol=0)
    lower = g @ q.T
    assert float(lower.triu(1).abs().max()) < 1e-6
    assert float(lower.diagonal().min()) > 0


@pytest.mark.parametrize("num", [192, 60])
def test_both_ways_to_orthonormal_rows_round_to_the_same_bits(num: int) -> None:
    """What a CPU factorises by reflections and a GPU by Cholesky is one set of directions."""
    for step in range(20):
        g = gaussian_rows(num, 192, 0, torch.tensor(step)).double()
        ways = [(way(g) * 192**0.5 * 4096).round() for way in (_by_cholesky, _orthonormal)]
        assert torch.equal(ways[0], ways[1])


def test_a_rotation_is_one() -> None:
    """`random_rotation` has orthonormal rows to float32, another for each seed."""
    a, b = (random_rotation(24, seed=s) for s in (0, 1))
    torch.testing.assert_close(a @ a.T, torch.eye(24), atol=1e-6, rtol=0)
    assert float((a - b).norm(dim=1).min()) > 0.1


def test_orthogonal_rows_are_uniform() -> None:
    """A single row of an orthogonal block is uniform on the sphere, up to its sign."""
    rows = torch.cat(
        [random_directions(300, 3, seed=s, step=0, sampler="orthogonal") for s in range(100)]
    ).double()
    second = rows.T @ rows / len(rows)
    torch.testing.assert_close(second, torch.eye(3, dtype=torch.float64) / 3, atol=2e-5, rtol=0)
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
    with pytest.raises(ValueError, match="num_proj must be a whole number of at least 1, got 0"):
        random_directions(0, 3, seed=0, step=0)
    with pytest.raises(ValueError, match="sampler must be one of gaussian, orthogonal, got 'q'"):
        random_directions(1, 3, seed=0, step=0, sampler="q")


def test_the_hash_on_pythons_integers() -> None:
    """Written out on unbounded integers, the counters' bits are those the tensors hold."""
    weyl, mix_a, mix_b = HASH

    def wrap(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    def scramble(value: int) -> int:
        value = wrap((value ^ (value >> 30)) * mix_a)
        value = wrap((value ^ (value >> 27)) * mix_b)
        return wrap((value ^ (value >> 31)) * weyl)

    seed, step, dim, quads = 5, 6, 7, 2
    stream = scramble(wrap((step + hash_start(seed)) * mix_b)) + weyl
    table = quantiles(torch.device("cpu"))
    rows = torch.empty(3, dim)
    for m in range(3):
        for d in range(dim):
            bits = scramble(wrap((m * quads + d // 4) * weyl + stream))
            rows[m, d] = table[((bits >> 16 * (d % 4)) & 0xFFFF) ^ 0x8000]
    drawn = gaussian_rows(3, dim, seed, torch.tensor(step))
    assert torch.equal(drawn.float(), rows)


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_the_gpus_directions_are_the_same_bits() -> None:
    """The Triton kernel's rows and scales equal those of the CPU to the last bit."""
    from sigreg._kernels.ecf_triton import launch

    device = "cuda" if CUDA else "cpu"
    for num, dim, seed, step in ((5, 1, 0, 0), (3, 7, 9, 2**40), (4, 192, -3, 5)):
        theirs = draw(gaussian_rows(num, dim, seed, torch.tensor(step)), False)
        ours = launch.gaussian_directions(num, dim, seed, torch.tensor(step, device=device))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True))
