"""The graphs that the page runs: frames to embeddings, and plans to predicted embeddings.

    encoder.onnx        frames [N, 3, H, W] uint8         -> embedding [N, D], places [N, Q]
    futures-H.onnx      z [1, D], actions [S, H, A]       -> embedding [S, H, D], places [S, H, Q]

`places` is the output of the linear probe on each embedding. N and S are free.
"""

import copy
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_linear_bn_eval

from worldmodel.export import Call, Graph, write_onnx
from worldmodel.heads import Head
from worldmodel.layers import AdaLNBlock, ProjectionHead, fold_modulation
from worldmodel.model import WorldModel
from worldmodel.predictor import CausalPredictor


def write_graphs(model: WorldModel, probe: Head, folder: Path, horizons: list[int]) -> None:
    """Write encoder.onnx, and futures-H.onnx for each horizon; check each with onnxruntime.

    Raises: RuntimeError as `worldmodel.export.write_onnx`.
    """
    plain, probe = copy.deepcopy(model).cpu().eval(), copy.deepcopy(probe).cpu()
    model = copy.deepcopy(plain)
    for part in model.modules():
        if isinstance(part, ProjectionHead):
            part.expand = fuse_linear_bn_eval(part.expand, part.norm)
            part.norm = nn.Identity()  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    side, A = model.encoder.image_size, model.action_encoder.action_dim
    frames = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=generator)

    def write(
        name: str, part: nn.Module, run: Callable[..., Tensor], z: Tensor, inputs: dict[str, Tensor]
    ) -> None:
        def read(parts: nn.ModuleList, *given: Tensor) -> tuple[Tensor, Tensor]:
            found = run(parts[0], *given)
            return found, parts[1](found)

        # The number of rows of the last input is free.
        free = [*[dict[int, Dim]() for _ in inputs][1:], {0: Dim("rows", min=2)}]
        both = Call(nn.ModuleList([part, probe]), read).eval()
        graph = Graph(both, inputs, ("embedding", "places"), tuple(free))
        # The probe of a model whose embeddings hardly differ amplifies their rounding, so it is
        # asked for the places of the very embeddings that the graph gives.
        write_onnx(graph, folder / f"{name}.onnx", lambda found: (z, probe(found[0])))

    with torch.no_grad():
        z = plain.encode(frames[:, None])[:, 0]
        write("encoder", model, lambda m, x: m.encode(x[:, None])[:, 0], z, {"frames": frames})
        for H in horizons:
            actions = torch.randn(5, H, A, generator=generator)
            expected = plain.rollout(z[:1, None].expand(5, -1, -1), actions)
            inputs = {"z": z[:1], "actions": actions}
            write(f"futures-{H}", _Futures(model), _Futures.__call__, expected, inputs)


class _Futures(nn.Module):
    """Map one embedding [1, D] and plans [S, H, A] to predicted embeddings [S, H, D].

    A `CausalPredictor` is computed token by token. A browser runtime is fast at matrix products of
    many rows and slow at everything else. Therefore there are no slices, no transposes and no
    products of less than S rows: a product with a 0-1 matrix sums over a head. As in
    `worldmodel.rollout`, keys and values stay while the window grows, and the oldest token of a
    window needs none. Any other predictor uses `WorldModel.rollout`.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        causal = isinstance(model.predictor, CausalPredictor)
        self.blocks = nn.ModuleList(_Block(b) for b in model.predictor.blocks) if causal else None

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        if self.blocks is None:
            return self.model.rollout(z.unsqueeze(1) + 0 * actions[:, :1, :1], actions)
        predictor, tokens, start = self.model.predictor, [z], -1
        plans = F.silu(self.model.action_encoder(actions)).unbind(1)
        blocks = [cast(_Block, block) for block in self.blocks]
        steered = [[block.steer(a) for block in blocks] for a in plans]
        for end in range(1, len(plans) + 1):
            new = [end - 1]
            if start != max(0, end - predictor.history):
                start = max(0, end - predictor.history)
                windows, new = [list[Tensor]() for _ in blocks], list(range(start, end))
            for t in new:
                x = tokens[t] + predictor.positions[:, t - start]
                for block, window, by in zip(blocks, windows, steered[t], strict=True):
                    x = block(x, by, window)
            tokens.append(predictor.read_out(x))
        return torch.stack(tokens[1:], dim=1)


class _Block(nn.Module):
    """An `AdaLNBlock` for one token at a time, [S, D]."""

    def __init__(self, block: AdaLNBlock) -> None:
        super().__init__()
        self.block = block
        attention = block.attention
        query, key, value = attention.to_qkv.weight.detach().chunk(3)
        width = len(query) // attention.heads
        # [h d, h]: sums over each head.
        self.heads = nn.Buffer(torch.eye(attention.heads).repeat_interleave(width, dim=0))
        self.query = nn.Buffer(query * width**-0.5)
        self.key_value = nn.Buffer(torch.cat([key, value]))
        self.alone = nn.Buffer(attention.to_out.weight.detach() @ value)

    def steer(self, action: Tensor) -> tuple[Tensor, ...]:
        """Shifts, 1 + scales and gates, from SiLU of an encoded action [S, D]."""
        return F.linear(action, *fold_modulation(self.block.modulation)).chunk(6, dim=-1)

    def forward(self, x: Tensor, modulation: tuple[Tensor, ...], seen: list[Tensor]) -> Tensor:
        """`seen`: the oldest token, its own output, then each key and value minus the oldest's."""
        return self.block.advance(x, modulation, lambda tokens: self._attend(tokens, seen))

    def _attend(self, x: Tensor, seen: list[Tensor]) -> Tensor:
        out = self.block.attention.to_out
        if not seen:
            seen += [x, F.linear(x, self.alone, out.bias)]
            return seen[1]
        oldest, alone = seen[:2]
        seen += F.linear(x - oldest, self.key_value).chunk(2, dim=-1)
        query = F.linear(x, self.query)
        scores = [(query * k) @ self.heads for k in seen[2::2]]
        # A softmax in which the oldest token has a score of 0.
        most = reduce(torch.maximum, scores).relu()
        weights = [(score - most).exp() for score in scores]
        total = sum(weights, (-most).exp())
        parts = [(w / total) @ self.heads.T * v for w, v in zip(weights, seen[3::2], strict=True)]
        return F.linear(sum(parts[1:], parts[0]), out.weight) + alone
