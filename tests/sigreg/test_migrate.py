"""Every row of docs/migrate.md: our line against the other library's formula.

The formulas are written out here in plain Python numbers, from the published mathematics and the
conventions each library states (grid, factor N, views, λ). The golden values are theirs.
"""

import cmath
import math

import pytest
import torch

from sigreg import LeJEPALoss, Quadrature, SIGReg, invariance_loss, sigreg_loss

V, N, D, M = 4, 12, 3, 5


def _entry(v, n, d):
    """Some number, known to every machine, with views of a sample near each other."""
    return 1.3 * math.sin(1 + 2.7 * n + 5.1 * d) + 0.2 * math.cos(3 * v + 1.9 * n - d) + 0.1


VIEWS = [[[_entry(v, n, d) for d in range(D)] for n in range(N)] for v in range(V)]
_ROWS = [[math.cos(1.1 * m + 2.3 * d + 0.4) for d in range(D)] for m in range(M)]
DIRECTIONS = [[a / math.sqrt(sum(b * b for b in row)) for a in row] for row in _ROWS]


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _square_distance(left, right):
    """Mean over samples and coordinates of the squared difference."""
    return _mean(
        (a - b) ** 2 for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def _centre(views):
    return [[_mean(view[n][d] for view in views) for d in range(D)] for n in range(N)]


def _epps_pulley(samples, low, high, points):
    """∫ |φ̂(t) − e^{−t²/2}|² e^{−t²/2} dt by trapezoids, mean over directions, without N."""
    step = (high - low) / (points - 1)
    total = 0.0
    for a in DIRECTIONS:
        projected = [sum(p * q for p, q in zip(a, z, strict=True)) for z in samples]
        for k in range(points):
            t = low + k * step
            phi = math.exp(-t * t / 2)
            error = abs(_mean(cmath.exp(1j * t * x) for x in projected) - phi) ** 2
            total += step * (0.5 if k in (0, points - 1) else 1.0) * phi * error
    return total / M


def _half_line(samples):
    """The rule of lejepa, LeWM, stable-pretraining and lightly: 17 knots on [0, 3], doubled."""
    return 2 * _epps_pulley(samples, 0.0, 3.0, 17)


def _per_view(views):
    return _mean(N * _half_line(view) for view in views)


def _pooled(views):
    return V * N * _half_line([z for view in views for z in view])


class _Fixed(torch.nn.Module):
    """SIGReg along the directions of this file instead of random ones."""

    def __init__(self):
        super().__init__()
        self.inner = SIGReg(knots=17, num_proj=M)

    def forward(self, x):
        return self.inner(x, directions=_tensor(DIRECTIONS))


def _check(ours, formula, golden):
    assert formula == pytest.approx(golden, rel=1e-9)
    assert float(ours) == pytest.approx(golden, rel=1e-9)


def test_lejepa_package():
    """SlicingUnivariateTest(EppsPulley(t_max=3, n_points=17), M) is SIGReg(17, M)."""
    _check(_Fixed()(_tensor(VIEWS)), _per_view(VIEWS), GOLDEN["lejepa package"])


def test_lejepa_minimal():
    """The loss of MINIMAL.md is the convex LeJEPALoss with every view global and λ = 0.02."""
    invariance = _mean(_square_distance(view, _centre(VIEWS)) for view in VIEWS)
    formula = 0.98 * invariance + 0.02 * _per_view(VIEWS)
    ours = LeJEPALoss(_Fixed(), 0.02, convention="convex")(_tensor(VIEWS)).total
    _check(ours, formula, GOLDEN["lejepa minimal"])


def test_lejepa_paper():
    """Algorithm 2 with two global views is the convex LeJEPALoss with λ = 0.05."""
    invariance = _mean(_square_distance(view, _centre(VIEWS[:2])) for view in VIEWS)
    formula = 0.95 * invariance + 0.05 * _per_view(VIEWS)
    z = _tensor(VIEWS)
    ours = LeJEPALoss(_Fixed(), 0.05)(z[:2], z[2:]).total
    _check(ours, formula, GOLDEN["lejepa paper"])


def test_stable_pretraining():
    """Its LeJEPA adds λ times the statistic of all views together: additive and pooled."""
    invariance = _mean(_square_distance(view, _centre(VIEWS[:2])) for view in VIEWS)
    formula = invariance + 0.02 * _pooled(VIEWS)
    z = _tensor(VIEWS)
    loss = LeJEPALoss(_Fixed(), 0.02, convention="additive", pool_views=True)
    _check(loss(z[:2], z[2:]).total, formula, GOLDEN["stable-pretraining"])


def test_stable_worldmodel():
    """LeWM adds 0.09 times the mean over time steps of the statistic over the batch."""
    time_major = VIEWS  # [T, B, D]
    pairs = zip(time_major[1:], time_major[:-1], strict=True)
    prediction = _mean(_square_distance(now, before) for now, before in pairs)
    formula = prediction + 0.09 * _per_view(time_major)
    emb = _tensor(VIEWS).transpose(0, 1)  # [B, T, D], as its encoder returns them
    mse = (emb[:, 1:] - emb[:, :-1]).square().mean()
    ours = mse + 0.09 * _Fixed()(emb.transpose(0, 1))
    _check(ours, formula, GOLDEN["stable-worldmodel"])


def test_lightly():
    """Its first release tests and pulls the local views alone, convex with λ = 0.05."""
    invariance = _mean(_square_distance(view, _centre(VIEWS[:2])) for view in VIEWS[2:])
    formula = 0.95 * invariance + 0.05 * _per_view(VIEWS[2:])
    z = _tensor(VIEWS)
    global_proj, local_proj = z[:2], z[2:]
    ours = 0.95 * invariance_loss(local_proj, global_proj.mean(0)) + 0.05 * _Fixed()(local_proj)
    _check(ours, formula, GOLDEN["lightly"])


def test_eb_jepa():
    """BCS has ten points on [−3, 3], no factor N, the distance of the pair, and λ = 10."""
    z1, z2 = VIEWS[:2]
    bcs = _mean(_epps_pulley(view, -3.0, 3.0, 10) for view in (z1, z2))
    formula = _square_distance(z1, z2) + 10 * bcs
    t = torch.linspace(-3, 3, 10, dtype=torch.float64)[5:]
    window = torch.exp(-(t**2) / 2)
    weight = 2 * (6 / 9) * window
    weight[-1] /= 2
    rule = Quadrature(t=t, weight=weight, target=window)
    z = _tensor(VIEWS)[:2]
    statistic = sigreg_loss(z, _tensor(DIRECTIONS), rule, scale_by_n=False)
    ours = (z[0] - z[1]).square().mean() + 10 * statistic
    _check(ours, formula, GOLDEN["eb_jepa"])


def test_eb_jepa_as_lejepa_loss():
    """BCS is four times the additive LeJEPALoss at λ = 2.5, for the same statistic without N."""
    z = _tensor(VIEWS)[:2]

    def statistic(x):
        return _Fixed()(x) / N

    ours = 4 * LeJEPALoss(statistic, 2.5, convention="additive")(z).total
    bcs = (z[0] - z[1]).square().mean() + 10 * statistic(z)
    assert float(ours) == pytest.approx(float(bcs), rel=1e-9)


GOLDEN = {
    "lejepa package": 1.06476533483,
    "lejepa minimal": 0.0407371053524,
    "lejepa paper": 0.0720867953502,
    "stable-pretraining": 0.103951310896,
    "stable-worldmodel": 0.175171711512,
    "lightly": 0.0720206461993,
    "eb_jepa": 0.966771905519,
}
