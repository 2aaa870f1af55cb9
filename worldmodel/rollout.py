"""The rollout of many plans from few pasts, with the same numbers for less work.

Letters: B problems, S plans of each, T known frames, H steps, D embedding dims; h heads of d dims.
Tokens are the first axis of every tensor here, [T, B, S, D], so that a run of tokens is one block
of memory and one matrix product. What all plans of a problem share has S = 1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.contract import rows_in_cache
from worldmodel.layers import AdaLNBlock, fold_modulation

__all__ = ["PlanRollout"]


class PlanRollout:
    """`WorldModel.rollout` for S plans of each of B problems, with no product computed twice.

    The modulations of all blocks are one matrix product, computed once, though a token is in up to
    `history` windows. Keys and values are reused while the window grows; when it slides, every
    token has a new position and is computed again. The last block computes the newest token alone.
    All plans of a problem share what lies before the first planned action.

    On a CPU the oldest token of a window needs no query, key or value: softmax weights sum to one
    and do not change when a constant is added to all scores. With x₀ the oldest token's input

        Σⱼ aⱼ W_v xⱼ = W_v x₀ + Σ_{j>0} aⱼ W_v (xⱼ − x₀),    a = softmax(0, qᵀW_k (xⱼ − x₀), …)

    and W_o W_v x₀ is a single D × D product. Elsewhere launches cost more than products, and
    torch's attention replaces these steps (`fused`; None means everywhere but on a CPU).

    It reads the weights of `predictor` once. `rows` plans are computed together.
    """

    def __init__(
        self,
        predictor: Any,
        *,
        rows: int | None = None,
        compile: bool = False,
        fused: bool | None = None,
    ) -> None:
        self.predictor, positions = predictor, predictor.positions
        on_cpu = positions.device.type == "cpu"
        relative = on_cpu if fused is None else not fused
        with torch.no_grad():
            self.blocks = blocks = [_Block(block, relative) for block in predictor.blocks]
            self.positions = positions.detach().transpose(0, 1).unsqueeze(2)
            folded = [fold_modulation(part.block.modulation) for part in blocks]
            self.weight, self.bias = (torch.cat(part) for part in zip(*folded, strict=True))
        width = max(part.width for part in blocks)
        self.rows = rows or rows_in_cache(predictor.history, width, positions)
        if on_cpu:
            # Later calls shall need no page faults. glibc returns freed memory to the system above
            # twice the largest block it has unmapped, 64 MiB at most. Freeing an untouched block of
            # nearly 32 MiB raises that limit.
            torch.empty(2**25 - 2**13, dtype=torch.uint8)
        self._steps = torch.compile(self._rollout, dynamic=False) if compile else self._rollout

    def __call__(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        """Known z [B, T, D], encoded past [B, T − 1, D] and plans [B, S, H, D]: [B, S, H, D]."""
        B, S = plans.shape[:2]
        z, past = z.transpose(0, 1).unsqueeze(2), past.transpose(0, 1).unsqueeze(2)
        plans = plans.permute(2, 0, 1, 3)
        rows = self.rows or B * S
        if rows >= B * S:
            return self._steps(z, past, plans).permute(1, 2, 0, 3)
        some = (t.split(max(1, rows // S), dim=1) for t in (z, past, plans))
        out = [
            torch.cat([self._steps(known, done, p) for p in part.split(rows, dim=2)], dim=2)
            for known, done, part in zip(*some, strict=True)
        ]
        return torch.cat(out, dim=1).permute(1, 2, 0, 3)

    def _rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        """On [T, B, 1, D], [T − 1, B, 1, D] and [H, B, S, D]: [H, B, S, D]."""
        shared, steps, history = len(past), len(plans), self.predictor.history
        by_past = self._modulate(past) if shared else []
        by_plan = self._modulate(plans)
        tokens = list(z)
        start = done = -1
        for end in range(shared + 1, shared + 1 + steps):
            if start != max(0, end - history):
                start = done = max(0, end - history)
                seen: list[list[Tensor]] = [[] for _ in self.blocks]
                if done < shared:
                    x = z[done:shared] + self.positions[: shared - done]
                    self._advance(seen, x, by_past, slice(done, shared))
                    done = shared
            if end - done == 1:
                x = tokens[done].unsqueeze(0)
            else:
                x = torch.stack(torch.broadcast_tensors(*tokens[done:end]))
            x = x + self.positions[done - start : end - start]
            newest = self._advance(seen, x, by_plan, slice(done - shared, end - shared))
            tokens.append(self.predictor.read_out(newest))
            done = end
        return torch.stack(tokens[-steps:])

    def _modulate(self, actions: Tensor) -> list[tuple[Tensor, ...]]:
        """Shifts, 1 + scales and gates of every block, from encoded actions [n, B, S, D]."""
        together = F.linear(F.silu(actions), self.weight, self.bias)
        return [block.chunk(6, dim=-1) for block in together.chunk(len(self.blocks), dim=-1)]

    def _advance(
        self, seen: list[list[Tensor]], x: Tensor, by: Sequence[Sequence[Tensor]], at: slice
    ) -> Tensor:
        """Pass tokens x [n, B, S, D] through all blocks: the newest, [B, S, D]."""
        for part, window, modulation in zip(self.blocks, seen, by, strict=True):
            last = 1 if window is seen[-1] else len(x)
            attend = partial(part.attend, last=last, seen=window)
            x = part.block.advance(x, [m[at] for m in modulation], attend)
        return x[-1]


class _Block:
    """A block, and two ways of attending to a window whose tokens arrive one after another.

    Each processes tokens x [n, B, S, D], stores what later ones need in `seen`, and returns the
    last of them: [last, B, S, D].
    """

    def __init__(self, block: AdaLNBlock, relative: bool) -> None:
        self.block, self.heads = block, block.attention.heads
        self.qkv = block.attention.to_qkv.weight.detach()
        self.out = block.attention.to_out.weight.detach()
        self.bias = block.attention.to_out.bias.detach()
        self.width = max(len(self.qkv), *(len(p) for p in block.mlp.parameters()))
        if relative:
            query, _, value = self.qkv.chunk(3)
            self.query = query * (len(query) // self.heads) ** -0.5
            self.key_value = self.qkv[len(query) :]
            self.alone = self.out @ value
        self.attend = self._relative if relative else self._fused

    def _relative(self, x: Tensor, last: int, seen: list[Tensor]) -> Tensor:
        """`seen`: the oldest token, its own output, then each key and value minus the oldest's."""
        out = []
        if not seen:
            seen += [x[0], F.linear(x[0], self.alone, self.bias)]
            x = x[1:]
            if last > len(x):
                out, last = [seen[1].unsqueeze(0)], len(x)
        oldest, alone = seen[:2]
        if len(x):
            both = F.linear(x - oldest, self.key_value).unflatten(-1, (2, self.heads, -1))
            for token in both:
                seen += token.unbind(-3)
            query = F.linear(x[-last:], self.query).unflatten(-1, (self.heads, -1))
            mixed = _mix(query, seen[2::2], seen[3::2])
            out.append(F.linear(mixed.flatten(-2), self.out) + alone)
        return out[0] if len(out) == 1 else torch.cat(out)

    def _fused(self, x: Tensor, last: int, seen: list[Tensor]) -> Tensor:
        """`seen`: keys and values, [B, S, 2h, n, d]."""
        h = self.heads
        qkv = F.linear(x, self.qkv).unflatten(-1, (3 * h, -1)).permute(1, 2, 3, 0, 4)
        query, new = qkv[..., len(x) - last :, :][:, :, :h], qkv[:, :, h:]
        earlier = [kept.expand(-1, new.shape[1], -1, -1, -1) for kept in seen]
        seen[:] = [torch.cat([*earlier, new], dim=3) if earlier else new]
        mask, count = None, seen[0].shape[3]
        if 1 < last < count:
            mask = torch.ones(last, count, dtype=torch.bool, device=x.device).tril(count - last)
        # The kernels take only [n, h, T, d].
        query, key, mixed = (t.flatten(0, 1) for t in (query, *seen[0].chunk(2, dim=2)))
        if count > 1:
            mixed = F.scaled_dot_product_attention(
                query, key, mixed, attn_mask=mask, is_causal=1 < last == count
            )
        mixed = mixed.permute(2, 0, 1, 3).flatten(-2).unflatten(1, x.shape[1:3])
        return F.linear(mixed, self.out, self.bias)


def _mix(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Σ_{j>0} aⱼ vⱼ for the newest n tokens, each [B, S, h, d]; a has a score of 0 in front."""
    n, seen = len(query), len(keys)
    # Written out, because the overhead of an attention kernel is too large for three tokens.
    if seen == 1:
        return torch.linalg.vecdot(query, keys[0]).sigmoid().unsqueeze(-1) * values[0]
    scores = query.new_full((1 + seen, *query.shape[:-1]), -torch.inf)
    scores[0].zero_()
    first = [max(0, j - (seen - n)) for j in range(seen)]
    for j, (i, key) in enumerate(zip(first, keys, strict=True)):
        scores[1 + j, i:] = torch.linalg.vecdot(query[i:], key)
    weights = scores.softmax(0)[1:].unsqueeze(-1)
    out: Tensor = weights[0] * values[0]
    for j in range(1, seen):
        out[first[j] :].addcmul_(weights[j, first[j] :], values[j])
    return out
