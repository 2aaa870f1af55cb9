"""Goal-conditioned behaviour cloning: imitate what the data did on the way to a goal."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.contract import Encoder
from worldmodel.predictor import CausalPredictor
from worldmodel.records import Batch, Losses

__all__ = ["GCBC", "gcbc_loss"]


@checked()
class GCBC(nn.Module):
    """A policy: the last frames and a goal picture to the next block of actions.

    The trunk is a world model's predictor, steered by the goal's embedding. There is no search.

    Args:
        encoder: frames [..., C, H, W] -> [..., D]; freeze it by `requires_grad_(False)`.
        trunk: of the same D; its history is the policy's.
        action_dim: A of one block, raw action dims × frameskip.
    Raises: ValueError if the widths differ.
    Source: Ghosh et al., arXiv:1912.06088; as a baseline in LeWM, arXiv:2603.19312, Section 4.
    """

    def __init__(self, encoder: Encoder, trunk: CausalPredictor, action_dim: int) -> None:
        super().__init__()
        if encoder.dim != trunk.dim:
            got = f"{encoder.dim} and {trunk.dim}"
            raise ValueError(f"encoder and trunk must share one dim, got {got}")
        self.encoder: Any = encoder
        self.trunk, self.action_dim = trunk, action_dim
        self.head = nn.Linear(trunk.dim, action_dim)

    @checked(frames="any B T C H W", goal="any B C H W")
    def forward(self, frames: Tensor, goal: Tensor) -> Tensor:
        """The next block for frames [B, T, C, H, W], newest last, and goals [B, C, H, W]: [B, A].

        A past shorter than the history is extended by its first frame, as in training.
        """
        history = self.trunk.history
        if frames.shape[1] < history:
            first = frames[:, :1].expand(-1, history - frames.shape[1], -1, -1, -1)
            frames = torch.cat([first, frames], dim=1)
        z = self.encoder(torch.cat([frames[:, -history:], goal.unsqueeze(1)], dim=1))
        return self.decide(z)

    def decide(self, z: Tensor) -> Tensor:
        """The next block from embeddings [B, history + 1, D], the goal's last: [B, A]."""
        steered = self.trunk(z[:, :-1], z[:, -1:].expand(-1, z.shape[1] - 1, -1))
        return self.head(steered[:, -1])

    @torch.no_grad()
    def act(self, frames: Tensor, goal: Tensor) -> Tensor:
        """As `forward`, in evaluation mode: actions in the units of the training data."""
        if self.training:
            raise ValueError("model must be in eval mode, call model.eval() first")
        return self(frames, goal)


@checked(weight="[0, inf)")
def gcbc_loss(
    model: GCBC, batch: Batch, regularizer: nn.Module | None = None, weight: float = 0.0
) -> Losses:
    """Squared error of the recorded block, with a later frame of the window as the goal.

        mean (π(o_{≤t}, o_g) − a_t)²,   t uniform in 0…T − 2,  g uniform in t + 1…T − 1

    One (t, g) per window is drawn from the global generator. Goals lie inside the window, so take
    windows as long as the distance to goals (T = 6 at frameskip 5 for 25 steps).

    Args:
        model, batch: the policy, and windows of T ≥ 2 frames.
        regularizer, weight: of the embeddings [history + 1, B, D]; None for none.
    Returns: Losses; `prediction` is of the actions, embeddings are [B, history + 1, D], goal last.
    Raises: ValueError if there are fewer than two frames, or a weight without a regularizer.
    """
    frames, actions = batch.tensors()
    if not isinstance(frames, Tensor) or frames.dim() != 5 or frames.shape[1] < 2:
        got = list(frames.shape) if isinstance(frames, Tensor) else sorted(frames)
        raise ValueError(f"batch.frames must be [B, T >= 2, C, H, W], got {got}")
    if weight and regularizer is None:
        raise ValueError(f"weight must be 0 without a regularizer, got {weight}")
    B, T = frames.shape[:2]
    chance = torch.rand(2, B, device=frames.device)
    now = (chance[0] * (T - 1)).long()
    goal = now + 1 + (chance[1] * (T - 1 - now)).long()
    rows = torch.arange(B, device=frames.device)
    past = torch.arange(1 - model.trunk.history, 1, device=frames.device)
    seen = torch.cat([(now[:, None] + past).clamp_min(0), goal[:, None]], dim=1)
    z = model.encoder(frames[rows[:, None], seen])
    error = F.mse_loss(model.decide(z), actions[rows, now])
    extra = z.new_zeros(()) if regularizer is None else regularizer(z.transpose(0, 1))
    return Losses.of(error, weight, extra, z)
