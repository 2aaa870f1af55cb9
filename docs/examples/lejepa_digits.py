"""LeJEPA on real images: handwritten digits, no labels, no teacher.

scikit-learn ships 1,797 handwritten digits of 8x8 pixels. This script trains a small encoder twice
on unlabelled views of them: once with the invariance loss alone, once with SIGReg added. Then a
linear probe measures what each encoder has learned, on held-out images, and
`sigreg.embedding_report` describes each embedding.

Views agree perfectly if every image goes to one point. Without SIGReg the embedding collapses in
this way and loses the digits. The features before the projector keep what the random initialization
and BatchNorm give them. SIGReg keeps the embedding Gaussian, so the encoder must learn what the
views of a digit share.
"""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from sigreg import LeJEPALoss, SIGReg, embedding_report

VIEWS, BATCH, STEPS, WEIGHT = 4, 256, 300, 0.02
HELD_OUT = 497


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [N, 1, 8, 8] in [0, 1] and labels [N], of a training and a held-out part."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return images[train], labels[train], images[test], labels[test]


def augment(images: Tensor) -> Tensor:
    """A random view of every image: rotated, scaled, shifted, warped, brighter or darker, noisy."""
    n = len(images)
    angle = torch.empty(n).uniform_(-0.35, 0.35)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    stretch = torch.empty(n, 2, 1).uniform_(0.8, 1.2)
    move = torch.empty(n, 2, 1).uniform_(-0.3, 0.3)
    grid = functional.affine_grid(
        torch.cat([turn * stretch, move], -1), list(images.shape), align_corners=False
    )
    bend = functional.interpolate(
        0.12 * torch.randn(n, 2, 3, 3), size=8, mode="bilinear", align_corners=True
    )
    views = functional.grid_sample(images, grid + bend.movedim(1, -1), align_corners=False)
    return views * torch.empty(n, 1, 1, 1).uniform_(0.7, 1.3) + 0.05 * torch.randn_like(views)


def make_encoder() -> nn.Sequential:
    """Images [N, 1, 8, 8] -> features [N, 256], the probe's input."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 512), nn.BatchNorm1d(512), nn.ReLU()),
        *(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU()),
    )


def make_projector() -> nn.Sequential:
    """Features [N, 256] -> embedding [N, 16], the loss's input."""
    return nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 16))


def train(images: Tensor, weight: float) -> tuple[nn.Module, nn.Module]:
    """Encoder and projector after training on views of unlabelled images."""
    torch.manual_seed(0)
    encoder, projector = make_encoder(), make_projector()
    criterion = LeJEPALoss(SIGReg(num_proj=256), weight, convention="convex")
    parameters = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        batch = images[torch.randperm(len(images))[:BATCH]]
        views = augment(batch.repeat(VIEWS, 1, 1, 1))
        loss = criterion(projector(encoder(views)).view(VIEWS, BATCH, -1)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return encoder.eval(), projector.eval()


@torch.no_grad()
def probe(
    features: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor
) -> float:
    """Accuracy on held-out images of a linear classifier on frozen features."""
    known, new = features(x), features(test_x)
    mean, std = known.mean(0), known.std(0) + 1e-6
    classifier = LogisticRegression(max_iter=2000, C=0.1)
    classifier.fit(((known - mean) / std).numpy(), y.numpy())
    return float(classifier.score(((new - mean) / std).numpy(), test_y.numpy()))


def main() -> dict[str, float]:
    """Train with and without SIGReg and print what was learned; returns the accuracies."""
    x, y, test_x, test_y = load()
    few = torch.cat([(y == digit).nonzero()[:5, 0] for digit in range(10)])
    torch.manual_seed(0)
    untrained = make_encoder().eval()
    without, without_projector = train(x, 0.0)
    encoder, projector = train(x, WEIGHT)
    rows = {
        "raw pixels": nn.Flatten(),
        "features, untrained": untrained,
        "features, no SIGReg": without,
        "features, SIGReg": encoder,
        "embedding, no SIGReg": nn.Sequential(without, without_projector),
        "embedding, SIGReg": nn.Sequential(encoder, projector),
    }
    accuracy = {}
    print(f"A linear probe on {len(test_x)} held-out images, trained on")
    print(f"{'':24s}{len(x):10d}{len(few):10d} labels")
    for name, features in rows.items():
        accuracy[name] = probe(features, x, y, test_x, test_y)
        scarce = probe(features, x[few], y[few], test_x, test_y)
        print(f"{name:24s}{accuracy[name]:10.1%}{scarce:10.1%}")
    views = augment(test_x)
    for name in ("embedding, no SIGReg", "embedding, SIGReg"):
        with torch.no_grad():
            print(f"\n{name}, of views of held-out images:\n{embedding_report(rows[name](views))}")
    return accuracy


if __name__ == "__main__":
    accuracy = main()
    others = max(accuracy["raw pixels"], accuracy["features, untrained"])
    assert accuracy["features, SIGReg"] > max(0.97, others), "the features have not improved"
    assert accuracy["embedding, SIGReg"] > 0.95, "the embedding has lost the digits"
    assert accuracy["embedding, no SIGReg"] < 0.8, "nothing has collapsed"
