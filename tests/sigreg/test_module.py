"""The layer: what it scores, which directions it uses when, and what it keeps."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from sigreg import SIGReg, random_directions, sigreg_loss, trapezoid_rule
from sigreg.directions import Sketch


def test_gaussian_batches_score_the_noise_floor() -> None:
    """Over many steps the loss of fresh Gaussian batches averages 1.0525, whatever N is."""
    generator = torch.Generator().manual_seed(0)
    layer = SIGReg(num_proj=64)
    losses = [layer(torch.randn(8, 32, 24, generator=generator)) for _ in range(200)]
    assert torch.stack(losses).mean().item() == pytest.approx(1.0525, abs=0.01)


def test_it_is_the_function_at_its_seed_and_step() -> None:
    """The layer adds nothing to `sigreg_loss` but the draw of directions."""
    layer, x = SIGReg(9, 16, 2.0, seed=5), torch.randn(3, 32, 8)
    for step in range(3):
        a = random_directions(16, 8, seed=5, step=step)
        torch.testing.assert_close(layer(x), sigreg_loss(x, a, trapezoid_rule(9, 2.0)))


def test_training_draws_fresh_directions_and_evaluation_does_not() -> None:
    """Two training calls differ, two evaluation calls are equal bit for bit."""
    layer, x = SIGReg(num_proj=16), torch.randn(32, 8)
    assert layer(x) != layer(x)
    assert layer.step == 2
    layer.eval()
    assert layer(x) == layer(x)
    assert layer.step == 2


def test_own_directions_are_used_and_step_stays() -> None:
    """With `directions` given nothing is drawn."""
    layer, x, a = SIGReg(), torch.randn(32, 8), torch.eye(8)
    torch.testing.assert_close(layer(x, directions=a), sigreg_loss(x, a, trapezoid_rule()))
    assert layer.step == 0


def test_a_restart_continues_the_sequence_of_directions() -> None:
    """A layer loaded from a state dict gives the losses the saved one would have given."""
    x, first, second = torch.randn(32, 8), SIGReg(num_proj=16), SIGReg(num_proj=16)
    first(x)
    assert list(first.state_dict()) == ["step"]
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_checkpoints_of_the_released_code_load() -> None:
    """Its three quadrature buffers and its missing step are no error, inside a model either."""
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "sigreg": SIGReg()})
    state = model.state_dict()
    del state["sigreg.step"]
    for name in ("t", "phi", "weights"):
        state[f"sigreg.{name}"] = torch.zeros(17)
    model["sigreg"].step += 3
    model.load_state_dict(state)
    assert model["sigreg"].step == 3
    x, other = torch.randn(32, 8), SIGReg()
    other.step += 3
    assert torch.equal(model["sigreg"](x), other(x))


def test_casting_a_model_leaves_the_knots_alone() -> None:
    """.half(), .bfloat16() and .double() of a model change neither knots nor step."""
    x = torch.randn(32, 8)
    expected = SIGReg(num_proj=16)(x)
    for cast in (nn.Module.half, nn.Module.bfloat16, nn.Module.double):
        layer = cast(SIGReg(num_proj=16))
        assert layer.step.dtype == torch.int64
        assert torch.equal(layer(x), expected)


def test_a_layer_built_on_the_meta_device() -> None:
    """`to_empty` and `reset_parameters`, as FSDP does, give a fresh layer."""
    with torch.device("meta"):
        layer = SIGReg(num_proj=16)
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    x = torch.randn(32, 8)
    assert torch.equal(layer(x), SIGReg(num_proj=16)(x))


def test_float64_samples_get_a_float64_rule() -> None:
    """The float32 buffers do not limit float64 samples."""
    layer, x = SIGReg(12, 16, 3.3), torch.randn(32, 8, dtype=torch.float64)
    a = Sketch(16).draw(x)
    expected = sigreg_loss(x, a, trapezoid_rule(12, 3.3), backend="reference")
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=0)


def test_copies_are_independent() -> None:
    """A deep copy continues from the same step on its own."""
    layer, x = SIGReg(num_proj=16), torch.randn(32, 8)
    layer(x)
    twin = copy.deepcopy(layer)
    assert torch.equal(layer(x), twin(x))
    layer(x)
    assert (layer.step, twin.step) == (3, 2)


def test_orthogonal_directions() -> None:
    """The sampler is the one `random_directions` knows by that name."""
    layer, x = SIGReg(num_proj=16, sampler="orthogonal"), torch.randn(32, 8)
    a = random_directions(16, 8, seed=0, step=0, sampler="orthogonal")
    torch.testing.assert_close(layer(x), sigreg_loss(x, a, trapezoid_rule()))


def test_the_layout_trap_is_named_once() -> None:
    """[B, T, D] where [T, B, D] is meant warns once, with the remedy; proper layouts never."""
    layer = SIGReg(num_proj=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((4, 128, 8), (128, 8), (2, 2, 8), (10, 4, 32, 8)):
            layer(torch.randn(shape))
    with pytest.warns(UserWarning, match=r"pass x\.transpose\(0, 1\)"):
        layer(torch.randn(128, 4, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(128, 4, 8))


def escape(scale: float, spread: float = 1e-3) -> Tensor:
    """Standard deviation per coordinate after 200 steps from near total collapse."""
    layer = SIGReg(num_proj=32, scale=scale)
    z = (spread * torch.randn(64, 8)).requires_grad_()
    optimizer = torch.optim.SGD([z], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        layer(z).backward()
        optimizer.step()
    return z.detach().std(0)


def test_the_scale_term_leads_out_of_collapse() -> None:
    """From samples a thousandth apart it reaches unit scale where the plain loss stays behind."""
    plain, helped = escape(0.0), escape(10.0)
    assert float(plain.mean()) < 0.5
    assert 0.7 < float(helped.mean()) < 1.3


def test_the_scale_term_is_a_hinge_on_the_standard_deviation() -> None:
    """It adds scale · mean_d max(0, 1 − std_d), nothing for coordinates wide enough."""
    x = torch.randn(2, 50, 6, dtype=torch.float64) * torch.tensor([0.1, 0.5, 0.9, 2.0, 3.0, 4.0])
    mask = torch.rand(2, 50) > 0.3
    a = torch.eye(6, dtype=torch.float64)
    plain, with_scale = SIGReg()(x, directions=a), SIGReg(scale=3.0)(x, directions=a)
    hinge = (1 - x.std(1, correction=0)).clamp(min=0).mean()
    torch.testing.assert_close(with_scale, plain + 3 * hinge)
    plain, with_scale = (SIGReg(scale=s)(x, mask=mask, directions=a) for s in (0.0, 3.0))
    for whole in (mask.int(), mask.long()):
        assert torch.equal(SIGReg(scale=3.0)(x, mask=whole, directions=a), with_scale)
    weights = mask.double()
    weighted = SIGReg(scale=3.0)(x, sample_weight=0.1 * weights, directions=a)
    torch.testing.assert_close(weighted, with_scale)
    hinges = [(1 - x[b, mask[b]].std(0, correction=0)).clamp(min=0) for b in range(2)]
    torch.testing.assert_close(with_scale, plain + 3 * torch.stack(hinges).mean())


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("knots must be a whole number of at least 2, got 1", {"knots": 1}),
        ("num_proj must be a whole number of at least 1, got 0", {"num_proj": 0}),
        ("num_proj must be a whole number of at least 1, got 1.5", {"num_proj": 1.5}),
        ("t_max must be in .0, inf., got -1", {"t_max": -1}),
        ("sampler must be one of gaussian, orthogonal", {"sampler": "sobol"}),
        ("backend must be one of", {"backend": "cuda"}),
        ("scale must be in .0, inf., got -1", {"scale": -1}),
        ("quadrature must come without knots", {"knots": 9, "quadrature": trapezoid_rule()}),
        ("chunk must be a whole number of at least 1, got 0", {"chunk": 0}),
        ('group must be "auto", None, a process group', {"group": "yes"}),
    ],
)
def test_what_is_refused(message: str, arguments: dict[str, object]) -> None:
    """A layer that could not work is not built."""
    with pytest.raises(ValueError, match=message):
        SIGReg(**arguments)  # type: ignore[arg-type]


def train(backend: str) -> list[float]:
    """Losses of a small encoder trained on SIGReg alone."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 6))
    layer = SIGReg(num_proj=64, backend=backend)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, losses = torch.randn(128, 6) ** 3, []
    for _ in range(60):
        optimizer.zero_grad()
        loss = layer(model(x))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_follows_the_reference() -> None:
    """A run on the fused kernel has the loss curve of a run on the reference, and it falls."""
    fused, plain = train("cpu"), train("reference")
    assert fused == pytest.approx(plain, rel=1e-3)
    assert fused[-1] < 0.5 * fused[0]
