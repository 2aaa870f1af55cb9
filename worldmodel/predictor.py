"""Predictors: past embeddings and actions to the next embedding.

Letters: B windows, T frames, D embedding dims; n sequences, H planned steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.contract import Rollout
from worldmodel.layers import (
    AdaLNBlock,
    ProjectionHead,
    ViTBlock,
    check_history,
    feed_forward,
    given,
    zeroed,
)
from worldmodel.rollout import PlanRollout

__all__ = ["AffinePredictor", "CausalPredictor", "MLPPredictor", "PrefixPredictor"]


@checked(dropout="[0, 1)")
class CausalPredictor(nn.Module):
    """Causal transformer over a short history, each block steered by the actions.

    Token t attends to embeddings and actions up to t and predicts embedding t + 1. The defaults are
    the published ones: 10,791,360 parameters, and 792,768 in the head.

    Args:
        dim: D, embedding width and token width.
        depth, heads, dim_head: blocks, heads of each, and their width; the product need not be D.
        history: the largest T; one learned position for each.
        mlp_dim, projector_dim: hidden width of a block, and of the projection head.
        dropout: in attention and MLP; 0.1 was the published optimum, 0 costs 18 points of success.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded), T ≤ history -> [B, T, D].
    Raises: ValueError if T exceeds `history` or shapes disagree.
    Source: LeWM, arXiv:2603.19312, Section 3 and Table 9 (dropout).
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        heads: int = 16,
        history: int = 3,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        projector_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.dim = self.action_width = dim
        self.history = history
        self.positions = nn.Parameter(torch.randn(1, history, dim))
        blocks = (AdaLNBlock(dim, heads, dim_head, mlp_dim, dropout) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.projector = ProjectionHead(dim, projector_dim)

    @checked(embeddings="B T dim", actions="B T dim")
    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, D] and encoded actions [B, T, D]."""
        check_history(embeddings, self.history)
        x = embeddings + self.positions[:, : embeddings.shape[1]]
        for block in self.blocks:
            x = block(x, actions)
        return self.read_out(x)

    def read_out(self, x: Tensor) -> Tensor:
        """Predicted embeddings from tokens of the last block, [..., D]."""
        return self.projector(self.norm(x))

    def quick_rollout(self, *, rows: int | None = None, compile: bool = False) -> Rollout:
        """Read the weights, once, for many plans: `worldmodel.rollout.PlanRollout`."""
        return PlanRollout(self, rows=rows, compile=compile)


@checked(dropout="[0, 1)")
class PrefixPredictor(nn.Module):
    """Predicts the embedding after each prefix of the actions, in one pass.

        p_1 … p_T = transformer(W z_0, a_0, …, a_{T−1})      causal, the output at each action
        ẑ_k       = G(z_0, p_k)                              residual blocks, each k alone

    Predictions are not fed back, so errors do not accumulate, and a plan of H actions costs one
    pass instead of H. `jepa_loss` on windows of H + 1 frames trains it as published: output t is
    for t + 1 actions from the window's first frame. A plan starts from the newest known frame.

    Args:
        dim: D, embedding width and token width.
        history: most actions of one pass; longer plans continue from its last output.
        prefix_depth, heads: blocks of the transformer over actions, and heads, which divide `dim`.
        depth, dropout: of G.
        mlp_dim, projector_dim: hidden width of all blocks, and of the projection head.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded), T ≤ history -> [B, T, D].
    Raises: ValueError if T exceeds `history`, shapes disagree, or heads do not divide.
    Source: Fast-LeWM, arXiv:2606.26217, without its value-only projection; learned positions.
    """

    def __init__(
        self,
        dim: int = 192,
        history: int = 5,
        prefix_depth: int = 3,
        heads: int = 6,
        depth: int = 6,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        projector_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.dim = self.action_width = dim
        self.history = history
        self.start = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + history, dim))
        over_actions = (ViTBlock(dim, heads, mlp_dim, causal=True) for _ in range(prefix_depth))
        self.prefix = nn.ModuleList(over_actions)
        self.prefix_norm = nn.LayerNorm(dim)
        last = zeroed(nn.Linear(4 * dim, dim))
        norm = nn.LayerNorm(3 * dim)
        self.fusion = nn.Sequential(norm, nn.Linear(3 * dim, 4 * dim), nn.GELU(), last)
        self.blocks = nn.ModuleList(_Residual(dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.projector = ProjectionHead(dim, projector_dim)

    @checked(embeddings="B T dim", actions="B T dim")
    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict from embeddings [B, T, D] and encoded actions [B, T, D]; `[:, t]` is t + 1."""
        check_history(embeddings, self.history)
        first = embeddings[:, :1]
        tokens = torch.cat([self.start(first), actions], dim=1)
        tokens = tokens + self.positions[:, : tokens.shape[1]]
        for block in self.prefix:
            tokens = block(tokens)
        prefix = self.prefix_norm(tokens[:, 1:])
        x = first.expand_as(prefix)
        x = x + self.fusion(torch.cat([x, prefix, x * prefix], dim=-1))
        for block in self.blocks:
            x = block(x, prefix)
        return self.projector(self.norm(x))

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D], of which only the newest is used, and encoded actions: [n, H, D]."""
        start, out = z[:, -1:], []
        for part in actions[:, z.shape[1] - 1 :].split(self.history, dim=1):
            out.append(self(start.expand(-1, part.shape[1], -1), part))
            start = out[-1][:, -1:]
        return torch.cat(out, dim=1)


class _Residual(nn.Module):
    """x ← x + g · mlp((1 + s) · normalise(x) + b), steered by the prefix; new, the identity."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(dim, 3 * dim))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = feed_forward(dim, hidden_dim, dropout)

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        b, s, g = self.modulation(F.silu(prefix)).chunk(3, dim=-1)
        return torch.addcmul(x, g, self.mlp(torch.addcmul(b, 1 + s, self.norm(x))))


@checked()
class AffinePredictor(nn.Module):
    """The next embedding is an affine map of the last, chosen by the action.

        ẑ = z + U (g(a) · V z) + c(a)

    g and c are outputs of an MLP on the encoded action, U and V are D × r. It is linear in z, and a
    step costs a fraction of a transformer's. Good where embeddings move in straight lines.

    Args:
        dim, rank, hidden_dim: D, r, and width of the MLP.
        history: the largest T; each prediction uses its own frame alone.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded) -> [B, T, D].
    Raises: ValueError if shapes disagree.
    Source: state-affine transitions as in SALT, arXiv:2609.33595, of which only the idea was read.
    """

    def __init__(
        self, dim: int = 192, rank: int = 192, history: int = 3, hidden_dim: int = 512
    ) -> None:
        super().__init__()
        self.config = given(locals())
        self.dim = self.action_width = dim
        self.rank, self.history = rank, history
        self.read = nn.Linear(dim, rank, bias=False)
        self.write = nn.Linear(rank, dim, bias=False)
        self.expand = nn.Linear(dim, hidden_dim)
        self.steer = zeroed(nn.Linear(hidden_dim, rank + dim))

    @checked(embeddings="B T dim", actions="B T dim")
    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, D] and encoded actions [B, T, D]."""
        return self._step(embeddings, *self._steer(actions))

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D], of which only the newest is used, and encoded actions: [n, H, D]."""
        now, out = z[:, -1], []
        gates, shifts = self._steer(actions[:, z.shape[1] - 1 :])
        for gate, shift in zip(gates.unbind(1), shifts.unbind(1), strict=True):
            now = self._step(now, gate, shift)
            out.append(now)
        return torch.stack(out, dim=1)

    def _steer(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """g [..., r] and c [..., D] of encoded actions."""
        gate, shift = self.steer(F.gelu(self.expand(actions))).split([self.rank, self.dim], dim=-1)
        return gate, shift

    def _step(self, z: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
        return z + self.write(gate * self.read(z)) + shift


@checked()
class MLPPredictor(nn.Module):
    """The next embedding is the last plus an MLP of the last few embeddings and actions.

    Frames before the first of a window are zeros, the mean that SIGReg asks for. A step costs a
    fraction of a transformer's. A new predictor predicts no change.

    Args:
        dim, hidden_dim, depth: D, width, and residual blocks of two layers each.
        look_back: frames that a prediction uses.
        history: the largest T.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded) -> [B, T, D].
    Raises: ValueError if T exceeds `history` or shapes disagree.
    """

    def __init__(
        self, dim: int = 128, hidden_dim: int = 512, depth: int = 3, look_back: int = 3,
        history: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = given(locals())
        self.dim = self.action_width = dim
        self.look_back, self.history = look_back, history
        self.enter = nn.Linear(2 * look_back * dim, hidden_dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden_dim), *feed_forward(hidden_dim, hidden_dim, 0.0))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.leave = zeroed(nn.Linear(hidden_dim, dim))

    @checked(embeddings="B T dim", actions="B T dim")
    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, D] and encoded actions [B, T, D]."""
        check_history(embeddings, self.history)
        known = F.pad(torch.cat([embeddings, actions], dim=-1), (0, 0, self.look_back - 1, 0))
        return self._step(embeddings, known.unfold(1, self.look_back, 1).mT.flatten(-2))

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D] and encoded actions [n, T − 1 + H, D]: [n, H, D]."""
        known, n = list(z.unbind(1)), self.look_back
        pairs = [torch.cat(both, dim=-1) for both in zip(known, actions.unbind(1), strict=False)]
        pairs = [torch.zeros_like(pairs[0])] * (n - 1) + pairs
        for action in actions[:, len(known) :].unbind(1):
            known.append(self._step(known[-1], torch.cat(pairs[-n:], dim=-1)))
            pairs.append(torch.cat([known[-1], action], dim=-1))
        known.append(self._step(known[-1], torch.cat(pairs[-n:], dim=-1)))
        return torch.stack(known[z.shape[1] :], dim=1)

    def _step(self, z: Tensor, seen: Tensor) -> Tensor:
        h = self.enter(seen)
        for block in self.blocks:
            h = h + block(h)
        return z + self.leave(self.norm(h))
