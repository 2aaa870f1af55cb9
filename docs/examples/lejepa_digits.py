"""LeJEPA on real images, on a laptop: scikit-learn's 8x8 digits, no labels, no teacher.

Trains a small convolutional encoder twice: once to make views of one image agree and nothing
else, once with SIGReg beside it. Then asks a linear probe, on images never seen in training, what
each encoder has learned, and `sigreg.report` what each embedding looks like.

    python docs/examples/lejepa_digits.py
"""

from __future__ import annotations

import time

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from sigreg import LeJEPALoss, SIGReg, report

VIEWS, BATCH, STEPS, WEIGHT = 4, 256, 400, 0.05
HELD_OUT = 497  # of 1,797 images


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [N, 1, 8, 8] in [0, 1] and labels [N]; a fixed random split."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return images[train], labels[train], images[test], labels[test]


def augment(images: Tensor) -> Tensor:
    """A random view of every image: turned, stretched, moved, bent, noisy."""
    n = len(images)
    angle = torch.empty(n).uniform_(-0.35, 0.35)
    stretch = torch.empty(n, 2).uniform_(0.8, 1.2)
    shift = torch.empty(n, 2).uniform_(-0.3, 0.3)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    affine = torch.cat([turn * stretch.unsqueeze(-1), shift.unsqueeze(-1)], -1)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    bend = functional.interpolate(
        0.12 * torch.randn(n, 2, 3, 3), size=8, mode="bilinear", align_corners=True
    )
    views = functional.grid_sample(images, grid + bend.movedim(1, -1), align_corners=False)
    return views * torch.empty(n, 1, 1, 1).uniform_(0.7, 1.3) + 0.05 * torch.randn_like(views)


def encoder() -> nn.Sequential:
    """Images [N, 1, 8, 8] -> features [N, 256]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    )


def projector(dim: int = 32) -> nn.Sequential:
    """Features [N, 256] -> embedding [N, dim]; no normalization at the end, SIGReg sees to that."""
    return nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, dim))


def train(images: Tensor, weight: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and projector after training on views of `images`, with that weight on SIGReg."""
    torch.manual_seed(0)
    encode, project = encoder(), projector()
    criterion = LeJEPALoss(SIGReg(num_proj=256), weight)
    parameters = [*encode.parameters(), *project.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        batch = images[torch.randperm(len(images))[:BATCH]]
        views = augment(batch.repeat(VIEWS, 1, 1, 1))
        z = project(encode(views)).view(VIEWS, BATCH, -1)
        losses = criterion(z)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        schedule.step()
    return encode.eval(), project.eval()


@torch.no_grad()
def probe(features, train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> float:
    """Accuracy on held-out images of a linear classifier on frozen features."""
    a, b = features(train_x), features(test_x)
    mean, std = a.mean(0), a.std(0) + 1e-6
    classifier = LogisticRegression(max_iter=2000, C=0.1)
    classifier.fit(((a - mean) / std).numpy(), train_y.numpy())
    return float(classifier.score(((b - mean) / std).numpy(), test_y.numpy()))


def main() -> dict[str, float]:
    """Train with and without SIGReg, print what was learned, return the accuracies."""
    start = time.perf_counter()
    train_x, train_y, test_x, test_y = load()
    few = torch.cat([(train_y == digit).nonzero()[:5, 0] for digit in range(10)])
    torch.manual_seed(0)
    models = {
        "raw pixels": (nn.Flatten(), None),
        "untrained encoder": (encoder().eval(), None),
        "trained, no SIGReg": train(train_x, 0.0),
        "trained with SIGReg": train(train_x, WEIGHT),
    }
    print(f"held-out accuracy of a linear probe   {len(train_x)} labels   {len(few)} labels")
    accuracy = {}
    for name, (encode, _) in models.items():
        accuracy[name] = probe(encode, train_x, train_y, test_x, test_y)
        scarce = probe(encode, train_x[few], train_y[few], test_x, test_y)
        print(f"  {name:34s} {accuracy[name]:10.1%} {scarce:11.1%}")
    for name, (encode, project) in models.items():
        if project is not None:
            with torch.no_grad():
                verdict = report(project(encode(test_x)))
                print(f"\n{name}, embedding of the held-out images:\n{verdict}")
    print(f"\n{time.perf_counter() - start:.0f} s")
    return accuracy


if __name__ == "__main__":
    main()
