"""Two processes train as one: gradients, weights, batch statistics, and the command itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worldmodel.apps.cli import main
from worldmodel.apps.ranks import SharedBatchNorm, synchronise
from worldmodel.apps.runs import open_run
from worldmodel.apps.train.loop import read_state
from worldmodel.apps.train.reports import read_table
from worldmodel.checkpoint import digest
from worldmodel.data import HDF5Writer
from worldmodel.worlds import TwoRoom, collect

pytest.importorskip("h5py", reason="sigreg[data] is not installed")
# By its own name: torchrun starts the same file as a script.
sys.path.insert(0, str(Path(__file__).parent))
import shared_runs

SCRIPT = Path(shared_runs.__file__)


class Found(NamedTuple):
    """What two ranks left behind."""

    data: Path
    folder: Path
    ranks: list[dict[str, Tensor]]
    words: list[list[str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Run `shared_runs` on two gloo processes."""
    folder = tmp_path_factory.mktemp("ranks")
    data, world = folder / "walks.h5", TwoRoom(16)
    walks = collect(world, 12, 14, 0, bump=0.5)
    with HDF5Writer(data) as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(data), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return Found(
        data,
        folder,
        [load_file(folder / f"rank{r}.safetensors") for r in (0, 1)],
        [(folder / f"rank{r}.txt").read_text().splitlines() for r in (0, 1)],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "prefix",
    ["copied.", "sharded.", "parted.", "both.", "kept.", "compiled.", "compiled_parts.", "pldm.",
     "gcbc.", "composed."],
)  # fmt: skip
def test_two_ranks_are_one_process(found: Found, prefix: str) -> None:
    """Gradients of five steps, weights and batch statistics are those of one process, in float64.

    Regularizers and batch norm look at the whole batch, gradients are averaged, AdamW steps alike,
    with the weights on both ranks (DDP) or a part on each (FSDP2); embedded in three parts too,
    with frames kept in memory, as graphs for a compiler, and with every objective.
    """
    name = prefix[:-1] if prefix[:-1] in shared_runs.OBJECTIVES else "lewm"
    alone = shared_runs.trace(shared_runs.training(str(found.data), name=name))
    for rank in found.ranks:
        shared = {n.removeprefix(prefix): v for n, v in rank.items() if n.startswith(prefix)}
        assert shared.keys() == alone.keys()
        for name, value in alone.items():
            # The first gradients agree to rounding; AdamW then divides rounding by rounding where
            # batch norm makes a bias idle.
            error = float((shared[name] - value).double().norm())
            assert error < (1e-12 if name[0] == "1" else 1e-6) * (1 + float(value.double().norm()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lewm", *shared_runs.OBJECTIVES])
def test_both_ranks_end_with_the_same_finite_weights_in_bfloat16(found: Found, name: str) -> None:
    """Every objective trains in low precision, with dropout masks of each rank's own."""
    one, two = (
        {key: value for key, value in rank.items() if key.startswith(f"low.{name}.")}
        for rank in found.ranks
    )
    assert one
    for key, value in one.items():
        assert torch.equal(value, two[key])
        assert bool(value.isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "two agents of torchrun"])
def test_other_launchers_train_the_same_run(found: Found, tmp_path: Path, launcher: str) -> None:
    """Two tasks of Slurm, and two machines of one process each, leave one folder, bit for bit."""
    out, python = tmp_path / "run", [sys.executable, "-m"]
    command = ["worldmodel", "train", "--data", str(found.data), "--out", str(out)]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "WORLD_", "MASTER_"))}
    own |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    starts = []
    if launcher == "slurm":
        # The port follows from the number of the job.
        own |= {"SLURM_NTASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0"}
        own["SLURM_STEP_NODELIST"] = "localhost"
        starts += [
            (python, own | {"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)}) for r in (0, 1)
        ]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        agent = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id"]
        agent += ["two", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", "-m"]
        starts += 2 * [([*python, "torch.distributed.run", *agent], own)]
    tasks = [
        subprocess.Popen(
            [*start, *command, *shared_runs.WORDS], env=env, stderr=subprocess.PIPE, text=True
        )
        for start, env in starts
    ]
    told = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], told
    assert json.loads((out / "report.json").read_text())["processes"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert digest(open_run(out).model) == digest(open_run(found.folder / "run").model)


@pytest.mark.slow
def test_sharded_ranks_hold_a_part_each(found: Found) -> None:
    """The parts add up to the model, and neither rank has much more than half."""
    whole = sum(p.numel() for p in shared_runs.training(str(found.data)).model.parameters())
    held = [int(rank["held"]) for rank in found.ranks]
    assert sum(held) == whole
    assert max(held) < 0.55 * whole


@pytest.mark.slow
def test_a_sharded_run_resumes_and_its_files_are_whole(found: Found) -> None:
    """Two ranks with half the weights each go on from step 2 to the state they had reached before.

    Checkpoint and model are those of a run with copied weights but for rounding.
    """
    before, _ = read_state(found.folder / "step-000000004.safetensors")
    folder = found.folder / "sharded"
    after, _ = read_state(folder / "checkpoints" / "step-000000004.safetensors")
    copied, _ = read_state(found.folder / "run" / "checkpoints" / "step-000000004.safetensors")
    assert before.keys() == after.keys() == copied.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value)
        assert copied[name].shape == value.shape
    one, two = read_table(folder / "held_out.csv"), read_table(found.folder / "run/held_out.csv")
    assert one["prediction"] == pytest.approx(two["prediction"], rel=2e-3)
    for name, value in open_run(folder).model.state_dict().items():
        assert torch.equal(after[f"model.{name}"], value)


@pytest.mark.slow
def test_a_batch_norm_shared_by_uneven_ranks_is_one(found: Found) -> None:
    """Outputs, running values and all gradients of three and five rows are those of eight."""
    x, plain = shared_runs.rows_of_batch_norm(), shared_runs.norm_pair()[0]
    whole = shared_runs.normalised(plain, x, slice(None))
    parts = [{n.removeprefix("norm."): v for n, v in rank.items()} for rank in found.ranks]
    for name in ("y", "x"):
        joined = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(joined, whole[name], rtol=1e-10, atol=1e-10)
    for name in ("weight", "bias"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name])
    for part in parts:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(part[name], whole[name])


@pytest.mark.slow
def test_nan_on_one_rank_stops_all_of_them(found: Found) -> None:
    """Both stop before the same step, and the rank that holds the bad data says so."""
    innocent, guilty = found.words
    assert innocent[1] == guilty[1] == "2"
    assert "of rank 1); its actions hold NaN or inf" in guilty[0]
    assert "of rank 0); this rank's data are finite: unless another rank's are not" in innocent[0]


@pytest.mark.slow
def test_the_command_on_two_ranks_ends_as_on_one(found: Found, tmp_path: Path) -> None:
    """`torchrun … worldmodel train` leaves the losses and the folder of a single process."""
    out = tmp_path / "alone"
    assert main(["train", "--data", str(found.data), "--out", str(out), *shared_runs.WORDS]) == 0
    assert [words[2] for words in found.words] == ["0", "0"]
    shared = found.folder / "run"
    for table in ("curves.csv", "held_out.csv"):
        one, two = read_table(out / table), read_table(shared / table)
        for column in ("step", "prediction", "regularization"):
            assert two[column] == pytest.approx(one[column], rel=2e-3)
    one_run, two_run = open_run(out), open_run(shared)
    assert one_run.trained_on == two_run.trained_on
    assert one_run.model.state_dict().keys() == two_run.model.state_dict().keys()


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(found: Found, tmp_path: Path) -> None:
    """A checkpoint knows nothing of ranks: resumed alone, the run ends with the same losses."""
    out, shared = tmp_path / "run", found.folder / "run"
    shutil.copytree(shared, out)
    (out / "report.json").unlink()
    (out / "checkpoints" / "step-000000004.safetensors").unlink()
    assert main(["train", "--resume", "--out", str(out)]) == 0
    one, two = read_table(out / "held_out.csv"), read_table(shared / "held_out.csv")
    assert one["step"] == two["step"] == [2, 4]
    assert one["prediction"] == pytest.approx(two["prediction"], rel=2e-3)


def test_sharing_a_batch_norm_changes_nothing_for_a_process_alone() -> None:
    """Same parameters, same names, same output and running values, and no group is needed."""
    holder, plain = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), nn.BatchNorm1d(3)
    norm, names = holder[0], list(holder.state_dict())
    synchronise(holder)
    assert isinstance(holder[0], SharedBatchNorm)
    assert holder[0].weight is norm.weight
    assert list(holder.state_dict()) == names
    x = torch.randn(7, 3)
    assert torch.equal(holder[0](x), plain(x))
    assert torch.equal(holder[0].running_var, plain.running_var)
    synchronise(holder)


def test_a_batch_norm_that_cannot_be_shared_is_refused() -> None:
    """Image batch norms and those without a momentum would stay local: both are named."""
    with pytest.raises(TypeError, match=r"must be BatchNorm1d.*BatchNorm2d"):
        synchronise(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(TypeError, match="must have momentum"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3, momentum=None)))
