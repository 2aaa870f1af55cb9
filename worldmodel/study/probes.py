"""Information in embeddings: states by probes, pictures by a decoder, and a map.

Letters: N training rows, P other rows, D embedding dims, Q quantities.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel._arguments import checked
from worldmodel.heads import fit_head
from worldmodel.layers import zeroed
from worldmodel.records import as_seed
from worldmodel.study.estimates import Estimate, bootstrap

__all__ = [
    "Decoder", "Guesses", "ProbeScore", "fit_decoder", "principal_components", "probe_guesses",
    "score_guesses",
]  # fmt: skip


class Guesses(NamedTuple):
    """Predictions of probes for embeddings they were not fitted on."""

    constant: Tensor  #: [P, Q], the mean of the training quantities.
    linear: Tensor  #: [P, Q], of the least-squares fit.
    mlp: Tensor  #: [P, Q], of a small network.


class ProbeScore(NamedTuple):
    """The quality of a probe's predictions of one quantity."""

    mse: Estimate  #: Mean squared error in units of `scale`, squared.
    r: Estimate  #: Pearson's correlation between guess and truth.
    r2: Estimate  #: Share of the variance explained.


@checked(train_z="N D", train_y="N Q", test_z="P D")
def probe_guesses(train_z: Tensor, train_y: Tensor, test_z: Tensor, *, seed: int = 0) -> Guesses:
    """Fit probes of train_y [N, Q] on train_z [N, D]; predict from test_z [P, D], other episodes.

    They are `heads.fit_head`'s, linear and with two hidden layers of 128, beside a constant guess.

    Raises: ValueError if rows disagree, or there are fewer training rows than D + 1.
    Source: the probes of LeWM, arXiv:2603.19312, Section 5 and Tables 1, 3 and 4.
    """
    linear, network = fit_head(train_z, train_y), fit_head(train_z, train_y, (128, 128), seed=seed)
    middle = train_y.mean(0).expand(len(test_z), -1)
    with torch.no_grad():
        return Guesses(middle, linear(test_z), network(test_z))


@checked(guess="P Q", truth="P Q", episode="int P", scale="Q")
def score_guesses(
    guess: Tensor, truth: Tensor, episode: Tensor, scale: Tensor, *, seed: int = 0
) -> list[ProbeScore]:
    """Error, correlation and explained variance of each quantity, with intervals over episodes.

        MSE = mean ((ŷ − y) / scale)²,   R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    Args:
        guess, truth: [P, Q], of a probe and as it was.
        episode: [P], int64, which episode a row is of.
        scale: [Q], the unit of the errors; training deviations give the blind guess about 1.
    Returns: one ProbeScore per quantity; NaN where what r and R² divide by does not vary.
    Raises: ValueError if shapes disagree.
    """
    _, index = episode.unique(return_inverse=True)
    found = []
    for column in range(truth.shape[1]):
        rounding = 1e-7 * truth[:, column].double().abs().mean().clamp_min(1e-30)
        unit = float(scale[column].double().clamp_min(rounding))
        middle = truth[:, column].double().mean()
        y = (truth[:, column].double() - middle) / unit
        x = (guess[:, column].double() - middle) / unit
        rows = torch.stack([torch.ones_like(y), y, x, y * y, x * x, x * y], dim=1)
        sums = rows.new_zeros(int(index.max()) + 1, 6).index_add_(0, index, rows)
        figures = (_mse, _correlation, _explained)
        found.append(ProbeScore(*(bootstrap(sums, figure, seed=seed) for figure in figures)))
    return found


def _mse(total: Tensor) -> Tensor:
    n, _, _, yy, xx, xy = total.unbind(-1)
    return (yy - 2 * xy + xx) / n


def _explained(total: Tensor) -> Tensor:
    n, y, _, yy, xx, xy = total.unbind(-1)
    # The variance of a constant truth is rounding, of about 1e-16 in these units.
    variance = yy - y * y / n
    return torch.where(variance > 1e-12 * n, 1 - (yy - 2 * xy + xx) / variance, math.nan)


def _correlation(total: Tensor) -> Tensor:
    n, y, x, yy, xx, xy = total.unbind(-1)
    of_y, of_x = yy - y * y / n, xx - x * x / n
    varies = (of_y > 1e-12 * n) & (of_x > 1e-12 * n)
    return torch.where(varies, (xy - x * y / n) / (of_y * of_x).clamp_min(1e-300).sqrt(), math.nan)


@checked(z="N D")
def principal_components(z: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates of z [N, D] along the `num` directions of largest variance, and their shares.

    Returns: coordinates [N, num], and fractions of the variance [num].
    """
    values, vectors = torch.linalg.eigh(torch.cov(z.T).reshape(z.shape[1], z.shape[1]))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values[:num] / values.sum().clamp_min(torch.finfo(z.dtype).tiny)
    return (z - z.mean(0)) @ vectors[:, :num], share


@checked(mean="3 S S", centre="D", spread="D")
class Decoder(nn.Module):
    """An embedding to a picture: the mean picture plus a change.

    A linear map to a grid of 8 × 8, then two convolutions on 16 × 16, where each cell paints its
    own block of pixels; it trains in seconds on one core. `mean` [3, S, S] is the mean picture in
    0…1, S a multiple of 16; `centre` and `spread` [D] are of the embeddings.

    Shapes: [N, D] -> [N, 3, S, S] in 0…1.
    """

    def __init__(self, mean: Tensor, centre: Tensor, spread: Tensor, width: int = 32) -> None:
        super().__init__()
        side = mean.shape[-1]
        if side % 16:
            raise ValueError(f"mean must be [3, S, S], S a multiple of 16, got {list(mean.shape)}")
        self.mean = nn.Buffer(mean)
        self.centre = nn.Buffer(centre)
        self.spread = nn.Buffer(spread)
        block = side // 16
        self.grid = nn.Linear(len(centre), width * 64)
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GELU(),
            zeroed(nn.Conv2d(2 * width, 3 * block * block, 1)),  # starts at the mean
            nn.PixelShuffle(block),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Paint embeddings [N, D]: [N, 3, S, S]."""
        return self.paint(z).clamp(0, 1)

    def paint(self, z: Tensor) -> Tensor:
        """As `forward`, without the limits 0 and 1: gradients reach every pixel."""
        hidden = self.grid((z - self.centre) / self.spread)
        return self.mean + self.layers(hidden.unflatten(1, (-1, 8, 8)))


@checked(z="N D", pictures="any N 3 S S")
def fit_decoder(
    z: Tensor, pictures: Tensor, *, steps: int = 400, batch_size: int = 32, seed: int = 0
) -> Decoder:
    """Train a decoder on embeddings [N, D] and their pictures [N, 3, S, S], uint8.

    Pixels are weighted by 1 + 20 |x − mean|; otherwise small moving things are learned last.

    Returns: Decoder in evaluation mode.
    Raises: ValueError if the rows disagree or S is no multiple of 16; TypeError if pictures are not
        uint8: floats have an unknown unit.
    """
    if pictures.dtype != torch.uint8:
        raise TypeError(f"pictures must be uint8 in 0…255, got {pictures.dtype}")
    z = z.detach().float()
    mean = pictures.float().mean(0) / 255
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.device("cpu"):
        torch.manual_seed(as_seed(seed))
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
