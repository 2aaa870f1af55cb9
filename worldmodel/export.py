"""A model for other runtimes: ONNX files and `torch.export` programs.

Three graphs, each with any number of rows: the encoder, the predictor, and one planning step, an
iteration of the cross-entropy method whose noise is an input. Draw noise, call the planning step,
feed its mean and std back: that loop is a planner in any language with an ONNX runtime.

Letters: N frames, B problems, T known embeddings, S candidates, H horizon, A action dims of a
block, D embedding dims.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel._extras import install
from worldmodel.model import WorldModel

if TYPE_CHECKING:
    from os import PathLike

    from torch.export import ExportedProgram

__all__ = ["PlanningStep", "export_onnx", "export_torch"]

# Relative to the largest value where that exceeds 1: costs are sums of D squares.
_TOLERANCE = 1e-4


class PlanningStep(nn.Module):
    """One iteration of the cross-entropy method on the model's own cost.

        a_s  = μ + σ ε_s,  a_0 = μ,  cost_s = ‖ẑ_H(a_s) − z_goal‖²
        μ, σ ← mean and standard deviation (divisor K − 1) of the K candidates of least cost

    Args:
        model: in eval mode.
        num_elites: K, at least 2; S must be at least K.
    Raises: ValueError if the model is in training mode or K is below 2.
    Source: Rubinstein & Kroese, The Cross-Entropy Method (2004); LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(self, model: WorldModel, num_elites: int = 30) -> None:
        super().__init__()
        if model.training:
            raise ValueError("model must be in eval mode, call model.eval() first")
        if num_elites < 2:
            raise ValueError(f"num_elites must be at least 2, got {num_elites}")
        self.model = model
        self.num_elites = num_elites
        self.eval()

    def forward(
        self,
        z: Tensor,
        goal: Tensor,
        mean: Tensor,
        std: Tensor,
        noise: Tensor,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score S candidates and fit the Gaussian to the best.

        Args:
            z: [B, T, D], known embeddings, the newest last.
            goal: [B, D], embedding of the goal.
            mean: [B, H, A], in the units the model was trained on.
            std: [B, H, A].
            noise: [B, S, H, A], standard normal; its first candidate is not used.
            past: [B, T − 1, A], what was done between the known embeddings; None where T = 1.
        Returns: the next mean and std, [B, H, A] each, and the costs [B, S].
        """
        candidates = mean.unsqueeze(1) + std.unsqueeze(1) * noise
        candidates = torch.cat([mean.unsqueeze(1), candidates[:, 1:]], dim=1)
        B, S, H, A = candidates.shape
        done = z.new_zeros(B, 0, A) if past is None else past
        actions = torch.cat([done.unsqueeze(1).expand(B, S, -1, A), candidates], dim=2)
        known = z.unsqueeze(1).expand(B, S, -1, -1)
        # The plain rollout: it traces into a graph whose number of rows stays free.
        predicted = self.model.rollout(known.flatten(0, 1), actions.flatten(0, 1))
        costs = (predicted[:, -1].unflatten(0, (B, S)) - goal.unsqueeze(1)).square().sum(-1)
        costs = torch.where(costs.isfinite(), costs, torch.inf)
        best = costs.topk(self.num_elites, dim=1, largest=False).indices
        elites = candidates.gather(1, best[..., None, None].expand(-1, -1, H, A))
        mean = elites.mean(1)
        deviation = (elites - mean.unsqueeze(1)).square().sum(1)
        return mean, (deviation / (self.num_elites - 1)).sqrt(), costs


def export_onnx(
    model: WorldModel,
    folder: str | PathLike[str],
    *,
    horizon: int = 5,
    num_elites: int = 30,
    known: int = 1,
) -> list[Path]:
    """Write encoder.onnx, predictor.onnx and planning_step.onnx, and check each with onnxruntime.

    | file | inputs | outputs |
    |---|---|---|
    | encoder | frames [N, 3, H, W] uint8 | z [N, D] |
    | predictor | z [B, history, D], actions [B, history, A] | following [B, history, D] |
    | planning_step | z, goal, mean, std, noise, and past where T > 1 | next_mean, next_std, costs |

    N, B and S are free, all else is fixed. The predictor is causal: with fewer than `history`
    embeddings, fill up behind them with zeros and read the last position that is yours.

    Args:
        model: any device; exported in eval mode from a copy on the CPU.
        folder: made if absent.
        horizon: H of the planning step.
        num_elites: K of the planning step.
        known: T of the planning step; LeWM plans from one frame.
    Returns: the files.
    Raises: ImportError naming the extra if onnx, onnxscript or onnxruntime is absent; RuntimeError
        if a file's outputs differ from the model's by more than 1e-4 (of the largest, above 1).
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX files need {error.name}: {install('export')}") from error

    graphs = _graphs(model, horizon, num_elites, known)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    files = []
    for name, graph in graphs.items():
        file = path / f"{name}.onnx"
        draft = file.with_name(f"{file.name}.tmp")
        with warnings.catch_warnings():
            # The exporter uses parts of torch that torch itself has deprecated.
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            torch.onnx.export(
                graph.program(),
                f=draft,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        try:
            _check(draft, graph)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        files.append(file)
    return files


def export_torch(
    model: WorldModel,
    folder: str | PathLike[str],
    *,
    horizon: int = 5,
    num_elites: int = 30,
    known: int = 1,
) -> list[Path]:
    """Write encoder.pt2, predictor.pt2 and planning_step.pt2 for `torch.export.load`.

    The three graphs have the inputs and outputs of `export_onnx`, in its order.

    Args:
        model: any device; exported in eval mode from a copy on the CPU.
        folder: made if absent.
        horizon: H of the planning step.
        num_elites: K of the planning step.
        known: T of the planning step.
    Returns: the files.
    Raises: ValueError if `horizon` or `known` is below 1, or K below 2.
    """
    graphs = _graphs(model, horizon, num_elites, known)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    files = []
    for name, graph in graphs.items():
        file, draft = path / f"{name}.pt2", path / f"{name}.tmp.pt2"
        try:
            torch.export.save(graph.program(), draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        files.append(file)
    return files


class _Predict(nn.Module):
    """`WorldModel.predict` as a forward."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        return self.model.predict(z, actions)


class _Graph(NamedTuple):
    """A module and how to trace it.

    Attributes:
        module: in eval mode, on the CPU.
        inputs: example tensors by name.
        outputs: names.
        free: for each input, which dimensions are free.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    free: dict[str, dict[int, torch.export.Dim]]

    def program(self) -> ExportedProgram:
        """The traced graph."""
        with torch.no_grad():
            return torch.export.export(
                self.module, tuple(self.inputs.values()), dynamic_shapes=tuple(self.free.values())
            )


def _graphs(model: WorldModel, horizon: int, num_elites: int, known: int) -> dict[str, _Graph]:
    if horizon < 1 or known < 1:
        raise ValueError(f"horizon and known must be at least 1, got {horizon} and {known}")
    model = copy.deepcopy(model).cpu().eval()
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # No size is 1 or equal to another, so that no graph is special to its example.
    B, S, T, H = 2, num_elites + 3, known, horizon
    A, D = model.action_encoder.action_dim, model.predictor.dim
    side, history = model.encoder.image_size, model.predictor.history
    rows, candidates = torch.export.Dim("B"), torch.export.Dim("S", min=num_elites)
    step = {
        "z": normal(B, T, D),
        "goal": normal(B, D),
        "mean": normal(B, H, A),
        "std": normal(B, H, A).abs(),
        "noise": normal(B, S, H, A),
    }
    if T > 1:
        step["past"] = normal(B, T - 1, A)
    frames = torch.randint(0, 256, (B, 3, side, side), dtype=torch.uint8, generator=generator)
    return {
        "encoder": _Graph(
            model.encoder, {"frames": frames}, ("z",), {"frames": {0: torch.export.Dim("N")}}
        ),
        "predictor": _Graph(
            _Predict(model),
            {"z": normal(B, history, D), "actions": normal(B, history, A)},
            ("following",),
            {"z": {0: rows}, "actions": {0: rows}},
        ),
        "planning_step": _Graph(
            PlanningStep(model, num_elites),
            step,
            ("next_mean", "next_std", "costs"),
            {n: {0: rows, 1: candidates} if n == "noise" else {0: rows} for n in step},
        ),
    }


def _check(file: Path, graph: _Graph) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(
        list(graph.outputs), {name: value.numpy() for name, value in graph.inputs.items()}
    )
    with torch.no_grad():
        expected = graph.module(*graph.inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for name, value, other in zip(graph.outputs, expected, found, strict=True):
        error = (value - torch.from_numpy(other)).abs().max().item()
        if not error <= _TOLERANCE * max(1.0, value.abs().max().item()):
            raise RuntimeError(
                f"{file.stem} gives {name} with an error of {error:.1e} in onnxruntime"
            )
