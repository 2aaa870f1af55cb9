"""A model for other runtimes: ONNX files and `torch.export` programs.

There are three graphs, each for any number of rows: the encoder, the predictor, and one planning
step, which is an iteration of a planner with the noise as an input. A planner in any language with
an ONNX runtime is a loop: draw noise, call the planning step, pass its mean and std back.

Letters: N frames, B problems, T known embeddings, S candidates, H horizon, A and D dims.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from worldmodel._arguments import checked
from worldmodel._extras import need
from worldmodel.encoder import ActionEncoder, ConvEncoder, FusedEncoder, StateEncoder, ViTEncoder
from worldmodel.model import WorldModel
from worldmodel.patches import DinoPatches
from worldmodel.records import Folder, Observations, named

__all__ = ["PlanningStep", "export_onnx", "export_torch"]

# Relative to the largest value where that exceeds 1: costs are sums of D squares.
_TOLERANCE = 1e-4

Cost = Callable[[Tensor], Tensor]
Update = Callable[[Cost, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""A planner's iteration: (cost, mean, std, noise) -> next mean and std, and the costs."""


class PlanningStep(nn.Module):
    """One iteration of a planner on the model's own cost, ‖ẑ_H(a_s) − z_goal‖².

    Args:
        model: in eval mode.
        update: the planner's iteration, such as `planners.planning_step(planners.CEM())` with the
            bounds of the actions; it decides what to do with a cost that is not finite.
    Raises: ValueError if the model is in training mode.
    """

    def __init__(self, model: WorldModel, update: Update) -> None:
        super().__init__()
        if model.training:
            raise ValueError("model must be in eval mode, call model.eval() first")
        self.model, self.update = model, update
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
        """Score S candidates: the next mean and std, [B, H, A] each, and the costs [B, S].

        Args:
            z, goal: [B, T, D], known embeddings, the newest last, and [B, D].
            mean, std: [B, H, A], in the model's units.
            noise: [B, S, H, A], standard normal; `CEM` and `MPPI` ignore that of candidate 0.
            past: [B, T − 1, A], actions between the known embeddings; None where T = 1.
        """
        done = z.new_zeros(z.shape[0], 0, mean.shape[-1]) if past is None else past

        def cost(candidates: Tensor) -> Tensor:
            B, S = candidates.shape[:2]
            actions = torch.cat([done.unsqueeze(1).expand(B, S, -1, -1), candidates], dim=2)
            known = z.unsqueeze(1).expand(B, S, -1, -1)
            # The plain rollout traces into a graph for any number of rows.
            predicted = self.model.rollout(known.flatten(0, 1), actions.flatten(0, 1))
            last: Tensor = predicted[:, -1].unflatten(0, (B, S))
            return (last - goal.unsqueeze(1)).square().sum(-1)

        return self.update(cost, mean, std, noise)


@checked()
def export_onnx(
    model: WorldModel,
    folder: Folder,
    *,
    update: Update,
    horizon: int = 5,
    least_samples: int = 30,
    known: int = 1,
    example: Observations | None = None,
) -> list[Path]:
    """Write encoder.onnx, predictor.onnx and planning_step.onnx, and check each with onnxruntime.

    | file | inputs | outputs |
    |---|---|---|
    | encoder | frames [N, 3, H, W] uint8, or states [N, Q], or several by name | z [N, D] |
    | predictor | z [B, history, D], actions [B, history, A] | following [B, history, D] |
    | planning_step | z, goal, mean, std, noise, and past where T > 1 | next_mean, next_std, costs |

    N, B and S are free, all else is fixed. The predictor is causal: with fewer than `history`
    embeddings, append zeros and read the output at your last one.

    Args:
        model, folder: on any device, exported in eval mode from a copy; created if absent.
        update: of the planning step, see `PlanningStep`; its bounds become part of the graph.
        horizon, known: H and T of the planning step; LeWM plans from one frame.
        least_samples: the smallest S of the planning step, for a `CEM` its number of elites.
        example: observations [N >= 2, ...], needed only for an encoder of your own.
    Returns: the files.
    Raises: as `export_torch`; ImportError naming the extra if a package is absent; RuntimeError if
        a file's outputs differ from the model's by more than 1e-4 (of the largest, above 1).
    """
    for package in ("onnxruntime", "onnxscript"):
        need(package, "export", "a file for ONNX")

    graphs = _graphs(model, update, horizon, least_samples, known, example)
    return _write_all(graphs, Path(folder), "onnx", write_onnx)


@checked()
def export_torch(
    model: WorldModel,
    folder: Folder,
    *,
    update: Update,
    horizon: int = 5,
    least_samples: int = 30,
    known: int = 1,
    example: Observations | None = None,
) -> list[Path]:
    """Write encoder.pt2, predictor.pt2 and planning_step.pt2 for `torch.export.load`.

    The three graphs have the inputs and outputs of `export_onnx`, in its order.

    Args:
        model, folder, update, horizon, least_samples, known, example: as `export_onnx`.
    Returns: the files.
    Raises: TypeError for an action encoder of your own, and without an example for an encoder of
        your own; ValueError if `horizon` or `known` is below 1.
    """
    graphs = _graphs(model, update, horizon, least_samples, known, example)
    return _write_all(graphs, Path(folder), "pt2", lambda g, p: torch.export.save(g.program(), p))


class Call(nn.Module):
    """A call of a part, as a forward with positional inputs."""

    def __init__(self, part: nn.Module, how: Callable[..., Any]) -> None:
        super().__init__()
        self.part, self.how = part, how

    def forward(self, *inputs: Tensor) -> Any:
        return self.how(self.part, *inputs)


class Graph(NamedTuple):
    """A module and how to trace it."""

    module: nn.Module  #: In eval mode, on the CPU.
    inputs: Mapping[str, Tensor]  #: Examples, by name.
    outputs: tuple[str, ...]  #: Names.
    free: tuple[dict[int, Dim], ...]  #: The free dimensions of each input.

    def program(self) -> ExportedProgram:
        """The traced graph."""
        examples = tuple(self.inputs.values())
        free = (self.free,) if isinstance(self.module, Call) else self.free
        with torch.no_grad():
            return torch.export.export(self.module, examples, dynamic_shapes=free)


def _graphs(
    model: WorldModel,
    update: Update,
    horizon: int,
    least_samples: int,
    known: int,
    example: Observations | None,
) -> dict[str, Graph]:
    model = copy.deepcopy(model).cpu().eval()
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # No size is 1 or equal to another, so that no graph is specialised to its example.
    B, S, T, H = 2, least_samples + 3, known, horizon
    if not isinstance(model.action_encoder, ActionEncoder):
        raise TypeError(f"export needs an ActionEncoder, got {type(model.action_encoder).__name__}")
    A, D, history = model.action_encoder.action_dim, model.predictor.dim, model.predictor.history
    step = {
        "z": normal(B, T, D),
        "goal": normal(B, D),
        "mean": normal(B, H, A),
        "std": normal(B, H, A).abs(),
        "noise": normal(B, S, H, A),
    }
    if T > 1:
        step["past"] = normal(B, T - 1, A)
    seen = _example(model.encoder, B, generator) if example is None else example
    inputs = named(seen, "states" if isinstance(model.encoder, StateEncoder) else "frames")
    alone = isinstance(seen, Tensor)

    def encode(encoder: nn.Module, *observed: Tensor) -> Any:
        return encoder(observed[0] if alone else dict(zip(inputs, observed, strict=True)))

    window = {"z": normal(B, history, D), "actions": normal(B, history, A)}
    rows, frames = {0: Dim("B")}, {0: Dim("N")}
    free = dict.fromkeys(step, rows) | {"noise": rows | {1: Dim("S", min=least_samples)}}
    told = ("next_mean", "next_std", "costs")
    return {
        "encoder": Graph(Call(model.encoder, encode), inputs, ("z",), (frames,) * len(inputs)),
        "predictor": Graph(Call(model, WorldModel.predict), window, ("following",), (rows, rows)),
        "planning_step": Graph(PlanningStep(model, update), step, told, tuple(free.values())),
    }


def _example(encoder: object, num: int, generator: torch.Generator) -> Observations:
    """Example observations for one of our encoders."""
    if isinstance(encoder, FusedEncoder):
        parts = zip(encoder.names, encoder.encoders, strict=True)
        found = {name: _example(part, num, generator) for name, part in parts}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if isinstance(encoder, StateEncoder):
        return torch.randn(num, encoder.state_dim, generator=generator)
    if isinstance(encoder, (ViTEncoder, ConvEncoder, DinoPatches)):
        shape = (num, 3, encoder.image_size, encoder.image_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    raise TypeError(f"export needs example=observations for a {type(encoder).__name__}")


def _write_all(
    graphs: Mapping[str, Graph], path: Path, kind: str, write: Callable[[Graph, Path], None]
) -> list[Path]:
    """Write a file for each graph, whole or absent."""
    path.mkdir(parents=True, exist_ok=True)
    files = []
    for name, graph in graphs.items():
        file, draft = path / f"{name}.{kind}", path / f"{name}.tmp.{kind}"
        try:
            write(graph, draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        files.append(file)
    return files


def write_onnx(
    graph: Graph, draft: Path, expected: Callable[[list[Tensor]], Sequence[Tensor]] | None = None
) -> None:
    """Write a graph, run it by onnxruntime, and compare what it gives.

    `expected` gets the outputs of onnxruntime and returns what they should be; None: the outputs of
    the graph's module.
    Raises: RuntimeError if an output differs by more than 1e-4 (of the largest, above 1).
    """
    import onnxruntime
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    # The exporter tells of packages it could use, and uses what torch itself has deprecated.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names, outputs = list(graph.inputs), list(graph.outputs)
        written = torch.onnx.export(
            graph.program(), input_names=names, output_names=outputs, dynamo=True, verbose=False
        )
        assert written is not None
        # Half the file would be stack traces of this module.
        ClearMetadataAndDocStringPass()(written.model)
        written.save(draft, external_data=False)
    session = onnxruntime.InferenceSession(draft, providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in graph.inputs.items()}
    found = [torch.from_numpy(output) for output in session.run(outputs, given)]
    with torch.no_grad():
        wanted = expected(found) if expected else graph.module(*graph.inputs.values())
    wanted = (wanted,) if isinstance(wanted, Tensor) else wanted
    for name, value, other in zip(graph.outputs, wanted, found, strict=True):
        error = (value - other).abs().max().item()
        if not error <= _TOLERANCE * max(1.0, value.abs().max().item()):
            file = draft.name.replace(".tmp", "")
            raise RuntimeError(f"{file} gives {name} with an error of {error:.1e} in onnxruntime")
