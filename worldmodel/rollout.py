"""The rollout of many plans from few pasts, with the least work that gives the same numbers.

Letters: B problems, S plans of each, T known frames, H steps, D embedding dims; h heads of d dims.
Tokens come first in every tensor here, [T, B, S, D], so that a run of tokens is one block of
memory and one matrix product. What all plans of a problem share has S = 1.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from worldmodel.layers import AdaLNBlock
from worldmodel.predictor import CausalPredictor

__all__ = ["rollout_plans"]


def rollout_plans(
    predictor: CausalPredictor, z: Tensor, past: Tensor, plans: Tensor, *, rows: int | None = None
) -> Tensor:
    """`WorldModel.rollout` for S plans of each of B problems, every product computed once.

    The plain rollout sends the whole window through the predictor at every step. Here

    * a token's modulations are computed once, though it appears in up to `history` windows;
    * keys and values stay while the window grows; once it slides, positions shift and its tokens
      are new ones;
    * the last block answers for the newest token alone;
    * the oldest token of a window sees only itself, so it asks no query;
    * what lies before the first planned action is the same for all plans of a problem.

    Args:
        predictor: in eval mode.
        z: [B, T, D], known embeddings.
        past: [B, T − 1, D], encoded actions between them.
        plans: [B, S, H, D], encoded actions to try.
        rows: plans that go through all steps together; their tensors should fit into the
            processor's cache. None means all at once.
    Returns: [B, S, H, D], equal to the plain rollout up to rounding.
    Source: the rollout of LeWM, arXiv:2603.19312, Section 3.
    """
    B, S = plans.shape[:2]
    z, past = z.transpose(0, 1).unsqueeze(2), past.transpose(0, 1).unsqueeze(2)
    plans = plans.permute(2, 0, 1, 3)
    if rows is None or B * S <= rows:
        return _rollout(predictor, z, past, plans).permute(1, 2, 0, 3)
    out = []
    for b in range(0, B, max(1, rows // S)):
        some = slice(b, b + max(1, rows // S))
        parts = [
            _rollout(predictor, z[:, some], past[:, some], plans[:, some, s : s + rows])
            for s in range(0, S, rows)
        ]
        out.append(torch.cat(parts, dim=2))
    return torch.cat(out, dim=1).permute(1, 2, 0, 3)


def _rollout(predictor: CausalPredictor, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
    """As `rollout_plans`, on [T, B, 1, D], [T − 1, B, 1, D] and [H, B, S, D]: [H, B, S, D]."""
    shared, steps = len(past), len(plans)
    blocks = [cast(AdaLNBlock, block) for block in predictor.blocks]
    by_past = [block.modulate(past) for block in blocks]
    by_plan = [block.modulate(plans) for block in blocks]
    tokens = list(z)
    start = done = -1
    for end in range(shared + 1, shared + 1 + steps):
        if start != max(0, end - predictor.history):
            start = done = max(0, end - predictor.history)
            memories = [_Memory(block) for block in blocks]
            if done < shared:
                x = z[done:shared] + predictor.positions[0, : shared - done, None, None]
                _advance(memories, x, by_past, slice(done, shared))
                done = shared
        positions = predictor.positions[0, done - start : end - start, None, None]
        x = torch.stack(torch.broadcast_tensors(*tokens[done:end])) + positions
        newest = _advance(memories, x, by_plan, slice(done - shared, end - shared))
        tokens.append(predictor.read_out(newest))
        done = end
    return torch.stack(tokens[-steps:])


def _advance(
    memories: list[_Memory], x: Tensor, modulations: list[tuple[Tensor, ...]], at: slice
) -> Tensor:
    """Send tokens x [n, B, S, D] through all blocks: the newest, [B, S, D]."""
    for memory, modulation in zip(memories, modulations, strict=True):
        last = 1 if memory is memories[-1] else len(x)
        x = memory.block.advance(x, [m[at] for m in modulation], partial(memory.attend, last=last))
    return x[-1]


class _Memory:
    """Keys and values of one block, token by token, and attention to them."""

    def __init__(self, block: AdaLNBlock) -> None:
        self.block = block
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, x: Tensor, last: int) -> Tensor:
        """Remember tokens x [n, B, S, D]; what the last of them attend to, [last, B, S, D]."""
        attention = self.block.attention
        keys, values = attention.keys_values(x)
        self.keys += keys.unbind()
        self.values += values.unbind()
        first = len(self.keys) - last
        seen = [self.values[0]] if first == 0 else []
        queries = attention.queries(x[len(x) - last + len(seen) :])
        for end, query in enumerate(queries, first + len(seen) + 1):
            seen.append(_mix(query, self.keys[:end], self.values[:end]))
        out: Tensor = attention.to_out(torch.stack(seen).flatten(-2))
        return out


def _mix(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """softmax(q·k / √d) · v for one query [B, S, h, d] and a handful of keys and values."""
    query = query * query.shape[-1] ** -0.5
    weights = torch.stack([(query * key).sum(-1, keepdim=True) for key in keys]).softmax(0)
    out = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        out = torch.addcmul(out, weight, value)
    return out
