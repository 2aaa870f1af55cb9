"""A world model, and its form for planning: encode, predict, roll out, imagine, cost."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.contract import Encoder, Predictor, QuickRollout, Steered, plain_rollout, roll_out
from worldmodel.encoder import ActionEncoder
from worldmodel.goals import Frames, near
from worldmodel.records import Observations, as_tensor, each, lead, named

__all__ = ["Futures", "Imagination", "WorldModel", "goal_cost"]

_ALIKE = 16
_Imagine = Callable[[Tensor, Tensor | None, Tensor], Tensor]


@checked()
class WorldModel(nn.Module):
    """An encoder, an action encoder and a predictor around one embedding.

    It caches nothing and never changes its arguments. Parts may be your own, see
    `worldmodel.contract`.

    Args:
        encoder: observations [B, T, ...] -> [B, T, D].
        action_encoder: actions [B, T, A] -> [B, T, a].
        predictor: embeddings [B, T, D] and encoded actions [B, T, a] -> [B, T, D], T ≤ history.
    Raises: ValueError if encoder and predictor differ in D, or a predictor that names its
        `action_width` meets an action encoder of another `dim`.
    Source: LeWM, arXiv:2603.19312, Section 3.
    """

    def __init__(
        self, encoder: Encoder, action_encoder: Callable[[Tensor], Tensor], predictor: Predictor
    ) -> None:
        super().__init__()
        if encoder.dim != predictor.dim:
            raise ValueError(
                f"encoder and predictor must share one dim, got {encoder.dim} and {predictor.dim}"
            )
        if isinstance(predictor, Steered) and isinstance(action_encoder, ActionEncoder):
            width, got = predictor.action_width, action_encoder.dim
            if width != got:
                raise ValueError(
                    f"action_encoder must have dim {width}, the predictor's action_width, got {got}"
                )
        # Any, because parts have more attributes than the contract names.
        self.encoder: Any = encoder
        self.action_encoder: Any = action_encoder
        self.predictor: Any = predictor

    def encode(self, frames: Observations) -> Tensor:
        """Embed observations, each frame alone: [B, T, D].

        Frames are [B, T, C, H, W], uint8 in 0…255 or floating point in 0…1; or other inputs of the
        encoder: a tensor [B, T, ...], a mapping of them, or NumPy arrays.
        """
        return self.encoder(each(frames, as_tensor))

    @checked(z="B T D", actions="array B T A")
    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict from z [B, T, D], T ≤ history, and actions [B, T, A] each next embedding.

        `actions[:, t]` follows `z[:, t]`; `[:, t]` of the result [B, T, D] predicts t + 1.
        """
        return self.predictor(z, self.action_encoder(as_tensor(actions)))

    @checked(z="B T D", actions="array B S A")
    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict step by step, each prediction feeding the next: [B, H, D].

        Args:
            z: [B, T, D], known embeddings, T ≥ 1; the last `history` of them are used.
            actions: [B, T − 1 + H, A], H ≥ 1: those between the known embeddings, then the plan.
        Raises: ValueError if there are too few actions.
        """
        if actions.shape[1] < z.shape[1]:
            raise ValueError(
                f"actions must be [B, T - 1 + H, A] with T = {z.shape[1]} and H >= 1, "
                f"got {list(actions.shape)}"
            )
        return roll_out(self.predictor, z, self.action_encoder(as_tensor(actions)))

    def imagine(
        self,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
        *,
        rows: int | None = None,
    ) -> "Imagination":
        """Prepare the model for planning, once: see `Imagination`, which has these arguments.

        Raises: ValueError if the model is in training mode.
        """
        if self.training:  # dropout and batch statistics would make futures noisy
            raise ValueError("model must be in eval mode, call model.eval() first")
        parts = self.encoder, self.action_encoder, self.predictor
        return Imagination(*parts, dtype=dtype, compile=compile, cuda_graph=cuda_graph, rows=rows)


@checked()
def goal_cost(
    model: WorldModel,
    frames: Observations,
    goal: Observations,
    *,
    past_actions: Tensor | None = None,
    steps: Frames = "last",
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    compile: bool = False,
    cuda_graph: bool = False,
) -> Callable[[Tensor], Tensor]:
    """Cost of plans: the expected distance of their end from the goal's embedding.

    It is short for these lines of a control loop, the first and the goal before the loop:

        imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
        futures = imagination.look(frames, past_actions)
        goals.near(imagination.embed(goal), frames=steps).of(futures)

    Args:
        model: in eval mode.
        frames: [B, T, C, H, W], the last frames, the newest last; or other observations.
        goal: [B, C, H, W], the wanted frame.
        past_actions: [B, T − 1, A], actions between the frames; needed where T > 1.
        steps: which futures are compared with the goal, the `frames` of `goals.near`.
        dtype, rows, compile, cuda_graph: as `WorldModel.imagine`.
    Returns: a differentiable function of actions [B, S, H, A], in the model's units, to [B, S].
    Raises: ValueError if the model is in training mode, shapes disagree, or CUDA is absent.
    Source: LeWM, arXiv:2603.19312, Section 3 (planning); sum over D as in the released code.
    """
    imagination = model.imagine(dtype, compile, cuda_graph, rows=rows)
    seen, one = (each(observed, as_tensor) for observed in (frames, goal))
    shapes = [{n: list(t.shape) for n, t in named(o, "frames").items()} for o in (seen, one)]
    if {name: shape[:1] + shape[2:] for name, shape in shapes[0].items()} != shapes[1]:
        raise ValueError(
            "frames and goal must be [B, T, C, H, W] and [B, C, H, W], or other observations "
            f"alike, got {shapes[0]} and {shapes[1]}"
        )
    return near(imagination.embed(one), steps).of(imagination.look(seen, past_actions))


@checked()
class Imagination:
    """Rolls out many plans from the present observations; made by `WorldModel.imagine`, once.

        imagination = model.imagine()
        futures = imagination.look(observations)       every control step
        z = futures(actions)                           [B, S, H, A] -> [B, S, H, D]

    It reads the weights when it is made: make another one after a training step. It uses a
    predictor's `QuickRollout` if there is one. Equal numbers of frames and plans reuse graphs.

    Args:
        encoder, action_encoder, predictor: in eval mode.
        dtype: of the rollout; None is the model's, in which observations are encoded. bfloat16 is
            faster only on hardware that multiplies it (AMX, tensor cores).
        compile: send the rollout through `torch.compile`; the first call takes a minute or two.
        cuda_graph: record the rollout as a CUDA graph on its first call and replay it from then on:
            no gradients, one recording per shape, not inside another recording.
        rows: plans that are rolled out together; None: the rollout chooses.
    Raises: ValueError if `cuda_graph` is set without CUDA.
    """

    def __init__(
        self,
        encoder: Encoder,
        action_encoder: Callable[[Tensor], Tensor],
        predictor: Predictor,
        *,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
        rows: int | None = None,
    ) -> None:
        modules = [m for m in (predictor, action_encoder, encoder) if isinstance(m, nn.Module)]
        floats = (p for part in modules for p in part.parameters() if p.is_floating_point())
        like = next(floats, torch.empty(0, device="cpu"))
        if cuda_graph and not like.is_cuda:
            raise ValueError(f"cuda_graph needs a model on a CUDA device, got {like.device}")
        self.device = like.device
        self.dtype = like.dtype if dtype is None else dtype
        self._encoder = encoder
        if self.dtype != like.dtype:
            action_encoder, predictor = copy.deepcopy((action_encoder, predictor))
            for part in (action_encoder, predictor):
                if isinstance(part, nn.Module):
                    part.to(self.dtype)
        if isinstance(predictor, QuickRollout):
            self._rollout = predictor.quick_rollout(rows=rows, compile=compile)
        else:
            self._rollout = plain_rollout(predictor, rows=rows, compile=compile)
        self._action_encoder = action_encoder
        self._imagine: _Imagine = _Graph(self._plainly) if cuda_graph else self._plainly

    @torch.no_grad()
    def look(self, observations: Observations, past_actions: Tensor | None = None) -> "Futures":
        """Encode the observations; the result predicts what plans lead to from here.

        Observations are [B, T, ...], the newest last, a tensor or a mapping of them, on any device.
        Past actions [B, T − 1, A] lie between them, and are needed where T > 1.

        Raises: ValueError if shapes disagree or past actions are missing.
        """
        observations = each(observations, lambda seen: torch.as_tensor(seen, device=self.device))
        B, T = lead(observations)
        past = None
        if past_actions is not None:
            past = torch.as_tensor(past_actions, dtype=self.dtype, device=self.device)
        if (T > 1 and past is None) or (past is not None and past.shape[:-1] != (B, T - 1)):
            got = None if past is None else list(past.shape)
            raise ValueError(
                f"past_actions must be [B, T - 1, A] with B = {B} and T = {T}, got {got}"
            )
        z: Tensor = self._encoder(observations).to(self.dtype)
        if past is None or T == 1:
            return Futures(self._imagine, z, None)
        # Each row stands for _ALIKE rows: products of few rows round a row by its position, and a
        # problem's future must not depend on its place in the batch.
        past = self._action_encoder(past.unsqueeze(1).expand(-1, _ALIKE, -1, -1))[:, 0]
        return Futures(self._imagine, z, past)

    @torch.no_grad()
    def embed(self, observations: Observations) -> Tensor:
        """Encode one observation of each problem, such as a goal's picture: [B, ...] -> [B, D]."""
        seen = each(observations, lambda one: torch.as_tensor(one, device=self.device).unsqueeze(1))
        return self._encoder(seen)[:, 0]

    def _plainly(self, z: Tensor, past: Tensor | None, actions: Tensor) -> Tensor:
        plans = self._action_encoder(actions)
        if past is None:
            past = plans.new_zeros(len(z), 0, plans.shape[-1])
        return self._rollout(z, past, plans)


@checked()
@dataclass(frozen=True, eq=False)
class Futures:
    """The embeddings that the model expects of plans; made by `Imagination.look`."""

    imagine: _Imagine  #: z, past and actions [B, S, H, A] -> [B, S, H, D].
    z: Tensor  #: [B, T, D], known embeddings, in the dtype of the rollout.
    past: Tensor | None  #: [B, T − 1, a], encoded past actions; None where T = 1.

    @checked(actions="array B S H A")
    def __call__(self, actions: Tensor) -> Tensor:
        """The embedding expected after each action of plans [B, S, H, A]: [B, S, H, D].

        Actions are in the model's units; gradients flow. Raises: ValueError on another shape.
        """
        actions = torch.as_tensor(actions, dtype=self.z.dtype, device=self.z.device)
        if actions.dim() != 4 or len(actions) != len(self.z):
            raise ValueError(
                f"actions must be [B, S, H, A] with B = {len(self.z)}, got {list(actions.shape)}"
            )
        return self.imagine(self.z, self.past, actions)


class _Graph:
    """A function of CUDA tensors, recorded once per shape into fixed buffers."""

    def __init__(self, function: _Imagine) -> None:
        self.function = function
        self.recorded: dict[tuple[torch.Size, ...], tuple[Any, list[Tensor], Tensor]] = {}

    def __call__(self, z: Tensor, past: Tensor | None, actions: Tensor) -> Tensor:
        if actions.requires_grad and torch.is_grad_enabled():
            raise ValueError("cuda_graph records no gradients: plan with cuda_graph=False")
        given = [t for t in (z, past, actions) if t is not None]
        shapes = tuple(t.shape for t in given)
        if shapes not in self.recorded:
            self.recorded[shapes] = self._record([t.clone() for t in given])
        graph, buffers, result = self.recorded[shapes]
        for buffer, value in zip(buffers, given, strict=True):
            buffer.copy_(value)
        graph.replay()
        return result.clone()

    @torch.no_grad()
    def _record(self, buffers: list[Tensor]) -> tuple[Any, list[Tensor], Tensor]:
        z, *past, actions = buffers

        def run() -> Tensor:
            return self.function(z, past[0] if past else None, actions)

        # Libraries initialise themselves at their first use, which must not be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
        return graph, buffers, result
