"""What two gloo processes do in `test_train_ranks`, started by torchrun.

`torchrun --nproc-per-node 2 shared_runs.py DATA FOLDER` leaves `rank0.safetensors`,
`rank1.safetensors`, `rank0.txt`, `rank1.txt` and a run folder of `worldmodel train`.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldmodel import Batch, ComposedTerms, Losses, composed_loss
from worldmodel.apps.cli import main as worldmodel
from worldmodel.apps.parsing import complete
from worldmodel.apps.ranks import ALONE, Ranks, SharedBatchNorm, joined, synchronise, whole
from worldmodel.apps.settings import Recipe, TrainSettings
from worldmodel.apps.train.loop import NonFiniteError, Training
from worldmodel.apps.train.material import build_model, objective_of
from worldmodel.data import ActionScale, Windows, open_hdf5

RECIPE = Recipe(steps=5, batch_size=12, learning_rate=1e-2, weight=0.3, num_proj=16, seed=4)
WORDS = (
    "preset=small", "batch_size=8", "num_proj=8", "frameskip=2", "steps=4", "workers=0",
    "encoder.dim=8", "encoder.projector_dim=8", "encoder.width=4", "action_encoder.dim=8",
    "predictor.dim=8", "predictor.depth=1", "predictor.mlp_dim=8", "predictor.dropout=0",
    "device=cpu", "checkpoint_every=2", "held_out_windows=8", "precision=float32",
    "learning_rate=1e-4",
)  # fmt: skip
UNEVEN = (3, 5)


OBJECTIVES = ("pldm", "gcbc", "composed")  # besides the default


def training(
    data: str, ranks: Ranks = ALONE, dropout: float = 0.0, *, name: str = "lewm",
    precision: str = "float64", kept: bool = False, **options: Any,
) -> Training:  # fmt: skip
    """A tiny model in float64, where rounding is too small for AdamW to blow it up.

    A clone's windows have two frames, so that the frame of its goal is no draw.
    """
    torch.manual_seed(2)
    episodes, small = open_hdf5(data), {"dim": 8, "projector_dim": 8}
    scale, frames = ActionScale.fit(episodes), 2 if name == "gcbc" else 4
    windows = Windows(episodes, num_frames=frames, frameskip=2, scale=scale)
    parts = {
        "encoder": small | {"width": 4},
        "action_encoder": {"dim": 8},
        "predictor": small | {"depth": 1, "mlp_dim": 8, "dropout": dropout},
    }
    if name == "gcbc":
        del parts["action_encoder"]
    told = {"data": data, "out": "run", "model": parts, "num_frames": frames}
    told |= {"objective": "lewm" if name == "composed" else name}
    settings = complete(TrainSettings, "train", told)
    dtype = torch.float64 if precision == "float64" else torch.float32
    model = build_model(settings, windows).to(dtype)
    if ranks.size > 1:
        synchronise(model)
    recipe = RECIPE if name != "gcbc" else RECIPE.model_copy(update={"weight": 0.0})
    if dtype == torch.float32:
        recipe = recipe.model_copy(update={"precision": precision})
    loss, regularizer = objective_of(settings.objective, recipe)
    if name == "composed":
        terms = {"inverse": 0.5, "rollout": 0.5, "straight": 0.1}
        loss, regularizer = composed_loss, ComposedTerms(regularizer, terms, dim=8, action_dim=4)
    regularizer.to(dtype)

    def objective(model: Any, batch: Batch, regularizer: Any, weight: float) -> Losses:
        return loss(model, Batch(batch.frames, batch.actions.to(dtype)), regularizer, weight)

    if kept:
        windows = windows.on(torch.device("cpu"))
    return Training(
        model, windows, recipe, objective=objective, regularizer=regularizer, ranks=ranks, **options
    )


def as_recorded(function: Any, *, compile: Any = torch.compile, **_: Any) -> Any:
    """`torch.compile` up to the graphs, forward and backward, which run as recorded."""
    return compile(function, dynamic=False, backend="aot_eager")


def trace(run: Training) -> dict[str, Tensor]:
    """Every gradient after every step, and the state at the end."""
    found: dict[str, Tensor] = {}

    for _ in run.run():
        for name, parameter in run.model.named_parameters():
            assert parameter.grad is not None
            found[f"{run.step}.{name}"] = whole(parameter.grad).clone()
    state = run.model.state_dict().items()
    return found | {f"end.{name}": whole(value).clone() for name, value in state}


def normalised(norm: nn.Module, x: Tensor, rows: slice) -> dict[str, Tensor]:
    """Output, running values and gradients of one call, for the rows of one rank."""
    x = x[rows].clone().requires_grad_()
    weight = torch.arange(1.0, 1 + 8 * 3, dtype=torch.float64).view(8, 3)[rows]
    y = norm(x)
    (weight * y.square() + y.pow(3)).sum().backward()
    out = {"y": y.detach(), "x": x.grad} | dict(norm.named_buffers())
    return {name: torch.as_tensor(value).clone() for name, value in out.items()} | {
        "weight": norm.weight.grad.clone(),
        "bias": norm.bias.grad.clone(),
    }


def rows_of_batch_norm() -> Tensor:
    """[8, 3], far from zero mean."""
    generator = torch.Generator().manual_seed(0)
    return 5 + 2 * torch.randn(8, 3, generator=generator, dtype=torch.float64)


def norm_pair() -> tuple[nn.BatchNorm1d, nn.Module]:
    """A batch norm, and the same to be shared."""
    plain = nn.BatchNorm1d(3).double()
    holder = nn.Sequential(nn.BatchNorm1d(3).double())
    synchronise(holder)
    assert isinstance(holder[0], SharedBatchNorm)
    return plain, holder[0]


def dirty(run: Training) -> str:
    """What each rank says when one of them meets NaN in its part of batch 2."""
    clean = run.windows.batch

    def batch(index: Tensor) -> Batch:
        found = clean(index)
        if run.step == 2 and run.ranks.rank == 1:
            found.actions[0, 1, 0] = math.nan
        return found

    run.windows.batch = batch  # type: ignore[method-assign]
    try:
        list(run.run())
    except NonFiniteError as error:
        return str(error)
    return "nothing"


def shared(data: str, folder: Path, ranks: Ranks) -> list[str]:
    """What is tried inside one process group; the words of this rank."""
    results = {f"copied.{name}": value for name, value in trace(training(data, ranks)).items()}
    rows = slice(0, UNEVEN[0]) if ranks.first else slice(UNEVEN[0], None)
    found = normalised(norm_pair()[1], rows_of_batch_norm(), rows)
    results |= {f"norm.{name}": value for name, value in found.items()}
    run = training(data, ranks, sharded=True)
    parts = trace(run)
    held = sum(p.to_local().numel() for p in run.model.parameters())  # type: ignore[attr-defined]
    results["held"] = torch.tensor(held)
    results |= {f"sharded.{name}": value for name, value in parts.items()}
    for name, sharded in (("parted", False), ("both", True)):
        parts = trace(training(data, ranks, sharded=sharded, accumulate=3))
        results |= {f"{name}.{key}": value for key, value in parts.items()}
    others: dict[str, dict[str, Any]] = {name: {"name": name} for name in OBJECTIVES}
    others |= {"kept": {"kept": True}, "compiled": {"compile": True, "accumulate": 3}}
    others |= {"compiled_parts": {"compile": True, "sharded": True}}
    # The graphs are recorded as for a compiler, which would take minutes.
    recorded, torch.compile = torch.compile, as_recorded
    for name, own in others.items():
        parts = trace(training(data, ranks, **own))
        results |= {f"{name}.{key}": value for key, value in parts.items()}
    torch.compile = recorded
    for name in ("lewm", *OBJECTIVES):
        run = training(data, ranks, 0.1, name=name, precision="bfloat16")
        list(run.run())
        results |= {f"low.{name}.{key}": value for key, value in run.model.state_dict().items()}
    run = training(data, ranks, dropout=0.5)
    words = [dirty(run), str(run.step)]
    plain = {name: value.contiguous() for name, value in results.items()}
    save_file(plain, folder / f"rank{ranks.rank}.safetensors")
    return words


def main(data: str, folder: Path) -> None:
    """One rank: run everything inside one group, leave the results in files."""
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        words = shared(data, folder, ranks)
        status = worldmodel(["train", "--data", data, "--out", str(folder / "run"), *WORDS])
        given = ["--data", data, "--out", str(folder / "sharded"), "--sharded"]
        status += worldmodel(["train", *given, *WORDS])
        if ranks.first:
            for name in ("report.json", "checkpoints/step-000000004.safetensors"):
                (folder / "sharded" / name).rename(folder / Path(name).name)
        # The files are moved before anybody looks for them.
        ranks.gather("moved")
        status += worldmodel(["train", "--resume", "--out", str(folder / "sharded")])
    (folder / f"rank{ranks.rank}.txt").write_text("\n".join([*words, str(status)]), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
