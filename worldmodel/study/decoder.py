"""Pictures of embeddings: a small decoder, trained after the fact. The model never sees it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.layers import start_at_zero

__all__ = ["Decoder", "fit_decoder"]


class Decoder(nn.Module):
    """An embedding to a picture: the mean picture, and what the embedding changes in it.

    A linear map to a grid of 8 × 8, two convolutions on 16 × 16, each cell of which paints its own
    block of pixels: cheap enough to be trained in seconds on one core.

    Args:
        mean: [3, S, S], the mean picture in 0…1, S a multiple of 16.
        centre, spread: [D], of embeddings, which are standardised by them.
        width: channels in between.
    Shapes: [N, D] -> [N, 3, S, S] in 0…1.
    Raises: ValueError if S is no multiple of 16.
    """

    mean: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, centre: Tensor, spread: Tensor, width: int = 32) -> None:
        super().__init__()
        side = mean.shape[-1]
        if side % 16 or mean.shape != (3, side, side):
            raise ValueError(f"mean must be [3, S, S], S a multiple of 16, got {list(mean.shape)}")
        self.register_buffer("mean", mean)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        block = side // 16
        self.grid = nn.Linear(len(centre), width * 64)
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GELU(),
            start_at_zero(nn.Conv2d(2 * width, 3 * block * block, 1)),  # it paints the mean
            nn.PixelShuffle(block),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Paint embeddings [N, D]: [N, 3, S, S]."""
        return self.paint(z).clamp(0, 1)

    def paint(self, z: Tensor) -> Tensor:
        """As `forward`, without the limits 0 and 1: gradients reach every pixel."""
        hidden = self.grid((z - self.centre) / self.spread)
        out: Tensor = self.mean + self.layers(hidden.unflatten(1, (-1, 8, 8)))
        return out


def fit_decoder(
    z: Tensor, pictures: Tensor, *, steps: int = 400, batch_size: int = 32, seed: int = 0
) -> Decoder:
    """Train a decoder on embeddings and the pictures they were made of.

    Pixels count by how much they differ from the mean picture, for a small thing that moves would
    otherwise be the last that is learned: weight 1 + 20 |x − mean|.

    Args:
        z: [N, D]; nothing flows back into them.
        pictures: [N, 3, S, S], uint8.
        steps: of Adam, learning rate rising to 2e-3 and falling to 0.
        batch_size: pictures a step.
        seed: of weights and batches; the global generator is left alone.
    Returns: Decoder in evaluation mode.
    Raises: ValueError if the rows disagree or S is no multiple of 16.
    """
    if len(z) != len(pictures) or pictures.dim() != 4:
        raise ValueError(
            f"z must be [N, D] and pictures [N, 3, S, S], got {list(z.shape)} and "
            f"{list(pictures.shape)}"
        )
    z = z.detach().float()
    mean = pictures.float().mean(0) / 255
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        decoder = Decoder(mean, z.mean(0), z.std(0).clamp_min(1e-6)).to(z.device)
        optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(z), (min(batch_size, len(z)),))
            wanted = pictures[rows].float() / 255
            weight = 1 + 20 * (wanted - decoder.mean).abs()
            loss = (weight * F.mse_loss(decoder.paint(z[rows]), wanted, reduction="none")).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return decoder.eval()
