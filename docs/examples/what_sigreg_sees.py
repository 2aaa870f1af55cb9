"""What SIGReg sees.

This script prints the statistic of a few batches with known properties. Then gradient descent on
the statistic alone spreads out a batch that is almost collapsed.
"""

import torch

from sigreg import SIGReg, trapezoid_rule

torch.manual_seed(0)
N, D = 256, 8

rule = trapezoid_rule()
floor = (rule.weight * (1 - rule.target.square())).sum()
print(f"noise floor: {floor:.4f}, what Gaussian samples score on average, whatever N and D\n")

shift = 0.5 * torch.eye(D)[0]
cases = {
    "standard Gaussian": lambda: torch.randn(N, D),
    "twice as many samples": lambda: torch.randn(2 * N, D),
    "scaled by 1.5": lambda: 1.5 * torch.randn(N, D),
    "moved by 0.5 along one axis": lambda: torch.randn(N, D) + shift,
    "uniform, same mean and variance": lambda: (torch.rand(N, D) - 0.5) * 12**0.5,
    "collapsed onto a line": lambda: torch.randn(N, 1) @ torch.randn(1, D),
    "collapsed onto a point": lambda: torch.zeros(N, D),
}
regularizer = SIGReg(num_proj=64)
for name, draw in cases.items():
    values = torch.stack([regularizer(draw()) for _ in range(50)])
    print(f"{name:32s} {values.mean():8.2f} ± {values.std() / 50**0.5:.2f}")

# No data and no encoder: the points themselves are the parameters.
z = (0.01 * torch.randn(N, D)).requires_grad_()
optimizer = torch.optim.Adam([z], lr=0.05)
print("\nstep  statistic  smallest and largest variance of a principal axis")
for step in range(201):
    loss = regularizer(z)
    if step % 50 == 0:
        variance = torch.linalg.eigvalsh(z.detach().T.cov())
        print(f"{step:4d} {loss.item():10.3f}  {variance[0]:.3f} {variance[-1]:.3f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
