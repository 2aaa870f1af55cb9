"""Two processes compute what one with all samples would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing

from sigreg import _distributed, check_distributed

# By its own name: a spawned process has this path, but no package that the tests belong to.
sys.path.insert(0, str(Path(__file__).parent))
import ranks

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.main, args=(str(folder),), nprocs=ranks.RANKS)
    return [torch.load(Path(folder, f"rank{rank}.pt")) for rank in range(ranks.RANKS)]


@pytest.mark.parametrize(
    "case",
    [
        "uneven",
        "leading dims",
        "an empty shard",
        "reference",
        "reference, an empty shard",
        "chunks",
        "a mask",
        "a mask, reference",
        "weights",
        "weights, reference",
        "reference, chunks",
        "triton",
        "triton, chunks",
        "without N",
        "scale",
        "sharded parameters",
    ],
)
def test_many_processes_are_one(results: list[dict[str, Any]], case: str) -> None:
    """Loss and averaged parameter gradient are those of a single process, on every rank."""
    for found in results:
        (loss, gradient), (shared_loss, shared_gradient) = found[case]
        torch.testing.assert_close(shared_loss, loss, rtol=1e-5, atol=0)
        scale = float(gradient.norm())
        assert float((shared_gradient - gradient).norm()) < 1e-5 * scale


def test_directions_that_are_learned(results: list[dict[str, Any]]) -> None:
    """Directions shared by all ranks get, averaged, the gradient of all samples."""
    for found in results:
        alone, averaged = found["learned directions"]
        assert float((averaged - alone).norm()) < 1e-5 * float(alone.norm())


def test_who_is_asked_is_decided_at_the_call(results: list[dict[str, Any]]) -> None:
    """A layer built before the group uses it with "auto"; None and a group of one do not."""
    for found in results:
        layers = found["layers"]
        for name in ("auto", "world", "mesh"):
            torch.testing.assert_close(layers[name], layers["all"])
        for name in ("off", "one", "mesh of one"):
            torch.testing.assert_close(layers[name], layers["part"])
        assert not torch.isclose(layers["all"], layers["part"], rtol=1e-3)


def test_in_evaluation_only_a_named_group_is_asked(results: list[dict[str, Any]]) -> None:
    """In evaluation "auto" is this process alone: one rank may come without the others."""
    for found in results:
        layers = found["layers"]
        for name in ("auto", "off", "one"):
            torch.testing.assert_close(layers[f"{name}, evaluated"], layers["part"])
        for name in ("world", "mesh"):
            torch.testing.assert_close(layers[f"{name}, evaluated"], layers["all"])
    torch.testing.assert_close(
        results[0]["layers"]["first rank alone"], results[0]["layers"]["part"]
    )


def test_one_message_forward_and_none_backward(results: list[dict[str, Any]]) -> None:
    """The message holds 2·M·K + 2 numbers and a mark of 16: 24 directions, 17 knots."""
    for found in results:
        for backend in ranks.ON_CPU:
            assert found["messages"][f"{backend} forward"] == [2 * 24 * 17 + 2 + 16]
            assert found["messages"][f"{backend} backward"] == []


def test_users_can_check_their_own_setup(results: list[dict[str, Any]]) -> None:
    """`check_distributed` reports errors, and names layers gone astray and lost messages."""
    for rank, found in enumerate(results):
        check = found["own check"]
        for name in ("default", "own"):
            ranks, loss_error, gradient_error = check[name]
            assert ranks == 2
            assert max(loss_error, gradient_error) < 1e-5
        assert "2 ranks use different directions" in check["astray"]
        assert f"got 0 and {rank} here" in check["astray"]
        assert check["off"][0] == 1
        assert "a message was lost" in check["dropped"]
        assert "SIGReg on 2 ranks differs from one process" in check["half dropped"]


def test_the_check_runs_without_a_group() -> None:
    """In one process it compares that process with itself."""
    ranks, loss_error, gradient_error = check_distributed()
    assert (ranks, loss_error, gradient_error) == (1, 0.0, 0.0)


def test_ranks_that_draw_other_directions_get_nan(results: list[dict[str, Any]]) -> None:
    """Another seed or step on one rank makes loss and gradient NaN on all, in the one message."""
    for found in results:
        for name, (loss, gradient) in found["astray"].items():
            assert bool(loss.isnan()) == ("agreed" not in name), name
            assert bool(gradient.isnan().all()) == ("agreed" not in name), name


def test_a_rank_outside_the_group_hears_of_it(results: list[dict[str, Any]]) -> None:
    """A group without the calling rank is an error, not a layer that sums nothing."""
    assert "must contain the rank that calls" in results[1]["outside"]
    for found in results:
        assert "one dimension of a device mesh, such as mesh['dp']" in found["layers"]["whole mesh"]


def test_a_report_over_the_ranks_is_that_of_all_samples(results: list[dict[str, Any]]) -> None:
    """Every rank, one without samples too, gets the report of one process; bad samples tell all."""
    for found in results:
        alone, shared, said = found["reports"]
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-6, msg=name)
        assert said == "z must be finite, got 1 non-finite values"


def test_the_check_runs_where_the_group_sends_its_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NCCL can send nothing but GPU tensors, gloo takes the CPU's."""
    monkeypatch.setattr(_distributed, "_resolve", lambda name: name)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda name: name)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for name, device in (("nccl", "cuda:3"), ("cpu:gloo,cuda:nccl", "cuda:3"), ("gloo", "cpu")):
        assert _distributed.device_of(name) == torch.device(device)
    assert _distributed.device_of("") == torch.device("cpu")
