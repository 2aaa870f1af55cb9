"""What do orthogonal directions save in noise, and what do they cost in time?"""

from __future__ import annotations

import functools
import math

import torch
from bench_sigreg import processor_time, step
from harness import save, speedup
from torch import Tensor

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid_rule

DRAWS, SAMPLES = 100, 128
NAMES = ("gaussian", "orthogonal")


def noise(z: Tensor, num_proj: int, sampler: str) -> tuple[float, float]:
    """Relative standard deviations of loss and gradient over draws of the directions."""
    dim, rule = z.shape[-1], trapezoid_rule()
    leaf = z.clone().requires_grad_()
    losses, total, square = [], torch.zeros_like(z), 0.0
    for s in range(DRAWS):
        a = random_directions(num_proj, dim, seed=1, step=s, sampler=sampler)
        loss = sigreg_loss(leaf, a, rule)
        (gradient,) = torch.autograd.grad(loss, leaf)
        losses.append(loss.detach())
        total += gradient
        square += float(gradient.square().sum())
    mean = float(total.square().sum()) / DRAWS**2
    values = torch.stack(losses)
    # E|g|² = |E g|² + variance; the mean itself holds 1/DRAWS of the variance.
    variance = (square / DRAWS - mean) * DRAWS / (DRAWS - 1)
    truth = max(mean - variance / DRAWS, 1e-30)
    return float(values.std() / values.mean()), math.sqrt(variance / truth)


def main() -> None:
    """Both samplers at the same M, on a Gaussian batch and on one collapsed to a twelfth."""
    torch.manual_seed(0)
    results, rows = [], []
    for dim, num_proj in ((192, 192), (192, 1024)):
        z = torch.randn(SAMPLES, dim)
        leaf = torch.randn(4, SAMPLES, dim, requires_grad=True)
        calls = {}
        for name in NAMES:
            layer = SIGReg(num_proj=num_proj, sampler=name)
            calls[name] = functools.partial(lambda x, f: step(x, f(x)), leaf, layer)
        times = processor_time(calls, rounds=15)
        slower = speedup(times, of="gaussian", over="orthogonal").median
        for kind, rank in (("isotropic", dim), (f"rank {dim // 12}", dim // 12)):
            batch = z * (torch.arange(dim) < rank)
            record: dict[str, object] = {"D": dim, "M": num_proj, "data": kind}
            found = {name: noise(batch, num_proj, name) for name in NAMES}
            for name in NAMES:
                record |= {
                    f"{name}_loss_noise": found[name][0],
                    f"{name}_gradient_noise": found[name][1],
                    f"{name}_seconds": times[name].record(),
                }
            worth = [(found["gaussian"][i] / found["orthogonal"][i]) ** 2 for i in range(2)]
            results.append(record)
            rows.append(
                [
                    f"D = {dim}, M = {num_proj}, {kind}",
                    *(f"{found[name][0]:.2%}" for name in NAMES),
                    *(f"{found[name][1]:.1%}" for name in NAMES),
                    f"{worth[0]:.1f}× / {worth[1]:.2f}×",
                    f"{slower:.2f}×",
                ]
            )
    save(
        "sigreg_samplers",
        "Noise that random directions leave in loss and gradient, gaussian beside orthogonal ones "
        f"at equal M, N = {SAMPLES}.",
        results,
        columns=(
            "data",
            "loss, gaussian",
            "orthogonal",
            "gradient, gaussian",
            "orthogonal",
            "worth as many directions, loss / gradient",
            "processor time of loss and gradient",
        ),
        rows=rows,
        note=f"Standard deviation over {DRAWS} draws, relative to the mean. Noise falls like "
        "1/√M, so that its square says how many gaussian directions one orthogonal is worth. "
        f"Times at [4, {SAMPLES}, D], orthogonal over gaussian, directions drawn inside.",
    )


if __name__ == "__main__":
    main()
