"""The streams: pure functions of seed, iteration and position, exact, and normal enough."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planners.noise import Noise, Stream, _table, fold_in, problem_seeds

SEEDS = st.integers(-(2**63), 2**63 - 1)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(1, 7))


def draw(seed: Tensor, iteration: int, size: tuple[int, ...], lane: int = 0) -> Tensor:
    """Normal numbers from a fresh stream: nothing made before can help."""
    return Noise(Stream(seed), iteration).normal(size, lane=lane)


@given(st.lists(SEEDS, min_size=1, max_size=6), st.integers(0, 70), SIZES, st.data())
def test_a_problem_draws_the_same_in_any_batch(
    seeds: list[int], iteration: int, size: tuple[int, ...], data: st.DataObject
) -> None:
    """Problem b's numbers depend on its seed alone, not on the others or their order."""
    whole = draw(torch.tensor(seeds), iteration, size)
    order = data.draw(st.permutations(range(len(seeds))))
    assert torch.equal(draw(torch.tensor(seeds)[order], iteration, size), whole[order])
    b = order[0]
    assert torch.equal(draw(torch.tensor(seeds)[b : b + 1], iteration, size)[0], whole[b])


@given(SEEDS, st.lists(st.integers(0, 100), min_size=1, max_size=5), SIZES)
def test_numbers_do_not_depend_on_what_was_drawn_before(
    seed: int, iterations: list[int], size: tuple[int, ...]
) -> None:
    """A stream that was asked in any order of iterations, lanes and sizes repeats its numbers."""
    stream = Stream(torch.tensor([seed]))
    for iteration in iterations:
        Noise(stream, iteration).normal((3,), lane=1)
        asked = Noise(stream, iteration).normal(size)
        assert torch.equal(asked, draw(torch.tensor([seed]), iteration, size))


def test_more_candidates_keep_the_first_ones() -> None:
    """The first S numbers are the same whatever S is: position, not count, decides."""
    seed = torch.arange(3)
    assert torch.equal(draw(seed, 2, (300, 5, 2))[:, :40], draw(seed, 2, (40, 5, 2)))


def test_fewer_numbers_are_not_made_again() -> None:
    """A population that shrinks draws from what was made for the first, larger one."""
    stream = Stream(torch.tensor([0]))
    made = []
    for iteration, S in enumerate((100, 80, 64, 51, 40)):
        Noise(stream, iteration).normal((S, 3, 2))
        made.append(stream._ahead[0, torch.float32][1])
    assert all(numbers is made[0] for numbers in made)


def test_large_draws_equal_small_ones() -> None:
    """Draws that are made in several passes have the bits of draws made in one."""
    seed = torch.arange(40)
    whole = draw(seed, 0, (5000,))
    for b in (0, 12, 13, 39):
        assert torch.equal(draw(seed[b : b + 1], 0, (5000,))[0], whole[b])


def test_later_draws_the_numbers_of_the_loop() -> None:
    """A method that counts from its own start gets the numbers of the loop's iteration."""
    stream = Stream(torch.tensor([3]))
    shifted = Noise(stream, 9).later(4)
    assert shifted.iteration == 5
    assert torch.equal(shifted.normal((7,)), Noise(stream, 9).normal((7,)))
    assert torch.equal(shifted.uniform((7,)), Noise(stream, 9).uniform((7,)))


def test_known_numbers() -> None:
    """The stream is a published function: these values hold on every machine and version."""
    z = draw(torch.tensor([0, 1]), 0, (130,))[:, [0, 1, 64, 128]]
    u = Noise(Stream(torch.tensor([0])), 1).uniform((3,))
    assert z.tolist() == [
        [-0.7148189544677734, -0.25330543518066406, -1.409322738647461, 0.001361846923828125],
        [0.5175857543945312, 1.2905683517456055, 0.7558727264404297, 0.32654476165771484],
    ]
    assert u.tolist() == [[0.6110111474990845, 0.6706323623657227, 0.8341318964958191]]


def test_the_sum_of_two_table_entries_is_exact() -> None:
    """Entries are multiples of 2⁻²⁰ below 4 in size, so float32 adds them without rounding."""
    table = _table(torch.device("cpu"))
    scaled = table.double() * 2**20
    assert torch.equal(scaled, scaled.round())
    assert table.abs().max() < 4
    assert torch.equal(table, -table.flip(0))


def test_the_table_does_not_hang_on_the_last_bit_of_ndtri() -> None:
    """No entry is so near a tie of its rounding that another machine could round it away."""
    p = (torch.arange(1 << 15, dtype=torch.float64) + 0.5) / (1 << 16)
    x = torch.special.ndtri(p)
    x = x * (0.5 / x.square().mean()).sqrt() * 2**20
    assert ((x - x.floor()) - 0.5).abs().min() > 1e-6


def test_normal_numbers_are_normal() -> None:
    """A million numbers agree with N(0, 1) in distribution function and first four moments."""
    z = draw(torch.tensor([11]), 0, (1_000_000,)).flatten().double()
    n = z.numel()
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    distance = (torch.special.ndtr(z.sort().values) - grid).abs().max()
    # Kolmogorov: P(√n D > 1.95) = 0.001.
    assert distance * math.sqrt(n) < 1.95
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(z.pow(power).mean() - moment) < 4 * math.sqrt(spread / n)
    assert z.abs().max() > 4.5


@pytest.mark.parametrize("neighbour", ["seed", "iteration", "lane", "position", "pair"])
def test_neighbouring_numbers_are_unrelated(neighbour: str) -> None:
    """Numbers one seed, iteration, lane or place apart are uncorrelated, as are squares."""
    n = 200_000
    base = draw(torch.tensor([5]), 3, (n + 1,))[0]
    if neighbour == "seed":
        other = draw(torch.tensor([6]), 3, (n + 1,))[0]
    elif neighbour == "iteration":
        other = draw(torch.tensor([5]), 4, (n + 1,))[0]
    elif neighbour == "lane":
        other = draw(torch.tensor([5]), 3, (n + 1,), lane=1)[0]
    else:
        # A number and its difference twin are a run of 64 apart.
        other = base.roll(1 if neighbour == "position" else 64)
    x, y = base[64:].double(), other[64:].double()
    for f in (lambda v: v, lambda v: v.square() - 1, torch.sign):
        r = (f(x) * f(y)).mean() / (f(x).square().mean() * f(y).square().mean()).sqrt()
        assert abs(r) < 4 / math.sqrt(n)
    assert (x != y).float().mean() > 0.999


def test_many_streams_are_unrelated() -> None:
    """The largest of half a million correlations between 1000 streams is what chance gives."""
    z = draw(torch.arange(1000), 0, (2000,)).double()
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    r = (z @ z.T / 2000).fill_diagonal_(0)
    assert 4 < r.abs().max() * math.sqrt(2000) < 6


def test_uniform_numbers_are_uniform() -> None:
    """They fill [0, 1) evenly, in multiples of 2⁻²⁴."""
    u = Noise(Stream(torch.tensor([2])), 0).uniform((200_000,)).flatten().double()
    assert u.min() >= 0
    assert u.max() < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())
    grid = (torch.arange(u.numel(), dtype=torch.float64) + 0.5) / u.numel()
    assert (u.sort().values - grid).abs().max() * math.sqrt(u.numel()) < 1.95


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_rounded_float32(dtype: torch.dtype) -> None:
    """A draw in another dtype is the float32 draw, rounded once."""
    noise = Noise(Stream(torch.arange(2)), 1)
    assert torch.equal(noise.normal((50,), dtype=dtype), noise.normal((50,)).to(dtype))
    assert noise.uniform((50,), dtype=dtype).dtype == dtype


def test_fold_in_separates_seeds_and_numbers() -> None:
    """A million pairs of seed and number give a million different seeds."""
    seeds = fold_in(torch.arange(-500, 500)[:, None], torch.arange(1000))
    assert seeds.unique().numel() == 1_000_000
    assert torch.equal(fold_in(torch.arange(5), 7), fold_in(torch.arange(5), torch.tensor(7)))


def test_integers_of_any_kind_are_seeds() -> None:
    """numpy's, the clock's, negative and huge ones: equal numbers are equal seeds."""
    np = pytest.importorskip("numpy")
    cpu = torch.device("cpu")
    for seed in (np.int64(7), np.uint8(7), torch.tensor(7), 7 + 2**64):
        assert torch.equal(problem_seeds(seed, 3, cpu), problem_seeds(7, 3, cpu))
    for seed in (time.time_ns(), -1, 2**63, np.uint64(2**64 - 1)):
        assert problem_seeds(seed, 2, cpu).dtype == torch.int64
    rows = np.array([3, 5], dtype=np.int32)
    assert problem_seeds(rows, 2, cpu).tolist() == [3, 5]
    for wrong in (1.5, True, "7", None):
        with pytest.raises(TypeError, match="seed must be an integer"):
            problem_seeds(wrong, 2, cpu)


def test_seeds_of_problems() -> None:
    """An int gives each problem its own seed, the first ones whatever B; a tensor stays itself."""
    cpu = torch.device("cpu")
    eight = problem_seeds(3, 8, cpu)
    assert torch.equal(problem_seeds(3, 5, cpu), eight[:5])
    assert eight.unique().numel() == 8
    assert not set(eight.tolist()) & set(problem_seeds(4, 8, cpu).tolist())
    given_seeds = torch.tensor([4, 4, 1], dtype=torch.int32)
    assert torch.equal(problem_seeds(given_seeds, 3, cpu), given_seeds.long())
    with pytest.raises(ValueError, match=r"seed must be \[2\]"):
        problem_seeds(given_seeds, 2, cpu)
    with pytest.raises(TypeError, match="integer or"):
        problem_seeds(torch.zeros(2), 2, cpu)
