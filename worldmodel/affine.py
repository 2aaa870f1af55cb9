"""A small predictor that is affine in the embedding, given the action."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AffinePredictor"]


class AffinePredictor(nn.Module):
    """The next embedding is an affine map of the last, chosen by the action.

        ẑ = z + U (g(a) · V z) + c(a)

    g and c are the outputs of an MLP on the encoded action, U and V are D × r. Nothing bends along
    z, so errors of a long rollout cannot run away through a nonlinearity, and a step costs a
    fraction of a transformer's. Good where embeddings move in straight lines.

    Args:
        dim: D, embedding width and width of an encoded action.
        rank: r of the part that depends on z.
        history: most frames of a window; each prediction looks at its own frame alone.
        hidden_dim: width of the MLP.
    Shapes: embeddings [B, T, D], actions [B, T, D] (encoded) -> [B, T, D].
    Raises: ValueError if shapes disagree.
    Source: state-affine transitions as in SALT, arXiv:2609.33595, of which only the idea was read.
    """

    def __init__(
        self, dim: int = 192, rank: int = 192, history: int = 3, hidden_dim: int = 512
    ) -> None:
        super().__init__()
        self.config = {"dim": dim, "rank": rank, "history": history, "hidden_dim": hidden_dim}
        self.dim = self.action_width = dim
        self.rank, self.history = rank, history
        self.read = nn.Linear(dim, rank, bias=False)
        self.write = nn.Linear(rank, dim, bias=False)
        self.expand = nn.Linear(dim, hidden_dim)
        self.steer = nn.Linear(hidden_dim, rank + dim)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, embeddings: Tensor, actions: Tensor) -> Tensor:
        """Predict each next embedding from [B, T, D] and encoded actions [B, T, D]."""
        if embeddings.shape != actions.shape or embeddings.shape[-1] != self.dim:
            raise ValueError(
                "embeddings and actions must both be [B, T, "
                f"{self.dim}], got {list(embeddings.shape)} and {list(actions.shape)}"
            )
        return self._step(embeddings, *self._steer(actions))

    def rollout(self, z: Tensor, actions: Tensor, /) -> Tensor:
        """Known z [n, T, D] and encoded actions [n, T − 1 + H, D]: [n, H, D], from the newest."""
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
        out: Tensor = z + self.write(gate * self.read(z)) + shift
        return out
