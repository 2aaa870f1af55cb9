"""Encoders: each frame alone, pixels in either dtype, and errors that name what came."""

from __future__ import annotations

import pytest
import torch

from worldmodel import ActionEncoder, ConvEncoder, FusedEncoder, StateEncoder, ViTEncoder


def vit() -> ViTEncoder:
    """Four patches and one block."""
    return ViTEncoder(image_size=8, patch_size=4, dim=12, depth=1, heads=2, projector_dim=16)


def conv() -> ConvEncoder:
    """Three layers."""
    return ConvEncoder(image_size=32, patch_size=4, width=4, dim=12, projector_dim=16)


def pixels(encoder: ViTEncoder | ConvEncoder, *lead: int) -> torch.Tensor:
    """Random uint8 frames of the encoder's size."""
    size = encoder.image_size
    return torch.randint(0, 256, (*lead, 3, size, size), dtype=torch.uint8)


@pytest.fixture(params=[vit, conv], ids=["vit", "conv"])
def encoder(request: pytest.FixtureRequest) -> ViTEncoder | ConvEncoder:
    """Both encoders, their batch statistics off their defaults, in evaluation mode."""
    part = request.param()
    part(pixels(part, 16))
    return part.eval()


def test_uint8_frames_equal_float_frames_over_255(encoder: ViTEncoder | ConvEncoder) -> None:
    """Bytes and their fractions of 255 are the same picture."""
    frames = pixels(encoder, 2, 3)
    torch.testing.assert_close(encoder(frames), encoder(frames / 255))


def test_each_frame_is_encoded_alone(encoder: ViTEncoder | ConvEncoder) -> None:
    """In evaluation an embedding does not depend on the other frames of the batch."""
    frames = pixels(encoder, 3, 4)
    z = encoder(frames)
    assert z.shape == (3, 4, 12)
    torch.testing.assert_close(z[1, 2], encoder(frames[1:2, 2:3])[0, 0])
    torch.testing.assert_close(z[2], encoder(frames[2]))


def test_every_pixel_counts(encoder: ViTEncoder | ConvEncoder) -> None:
    """The embedding has a gradient at every pixel of every channel."""
    frames = (pixels(encoder, 1) / 255).requires_grad_()
    encoder(frames).square().sum().backward()
    assert frames.grad is not None
    assert (frames.grad != 0).all()


def test_frames_are_normalised_with_imagenet_statistics(
    encoder: ViTEncoder | ConvEncoder,
) -> None:
    """A frame of the mean colour reaches the network as zeros, one deviation above it as ones."""
    seen = []
    first = encoder.patches if isinstance(encoder, ViTEncoder) else encoder.features
    first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    colour = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    size = encoder.image_size
    encoder(torch.stack([colour, colour + deviation]).expand(2, 3, size, size))
    torch.testing.assert_close(seen[0][0], torch.zeros(3, size, size), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0][1], torch.ones(3, size, size))


def test_an_empty_batch_has_no_embeddings(encoder: ViTEncoder | ConvEncoder) -> None:
    """No frames in, no embeddings out, in evaluation."""
    assert encoder(pixels(encoder, 0, 4)).shape == (0, 4, 12)


def test_frames_of_another_shape_are_refused(encoder: ViTEncoder | ConvEncoder) -> None:
    """The message holds the wanted and the given shape: wrong size, channels or rank."""
    size = encoder.image_size
    for shape in ((2, 3, size, size + 1), (2, 1, size, size), (3, size, size)):
        with pytest.raises(ValueError, match=rf"frames must be \[\.\.\., 3, {size}, {size}\]") as e:
            encoder(torch.zeros(shape))
        assert str(list(shape)) in str(e.value)


def test_frames_of_another_dtype_are_refused(encoder: ViTEncoder | ConvEncoder) -> None:
    """Integers other than bytes have no known range."""
    with pytest.raises(TypeError, match=r"frames must be uint8 .* or floating point.*torch.int64"):
        encoder(pixels(encoder, 1).long())


def test_sizes_that_do_not_divide_are_refused() -> None:
    """Patches must tile the picture and heads must share the width."""
    with pytest.raises(ValueError, match="image_size must be a multiple of patch_size 4, got 10"):
        ViTEncoder(image_size=10, patch_size=4)
    with pytest.raises(ValueError, match="dim must be a multiple of heads 3, got 16"):
        ViTEncoder(dim=16, heads=3)
    for size in (48, 66):
        with pytest.raises(ValueError, match=f"power of two times patch_size 4, got {size}"):
            ConvEncoder(image_size=size, patch_size=4)


def test_vit_sees_where_a_patch_lies() -> None:
    """Swapping two patches of a picture changes its embedding: positions are learned."""
    encoder = vit()
    encoder(pixels(encoder, 16))
    encoder.eval()
    torch.nn.init.normal_(encoder.positions)
    frame = pixels(encoder, 1)
    for part in encoder.blocks.modules():
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.5)
    assert not torch.allclose(encoder(frame), encoder(frame.roll(4, dims=-1)), atol=1e-4)


def test_constructor_arguments_are_kept() -> None:
    """`config` builds a part of the same parameters, for checkpoints."""
    for part in (vit(), conv(), ActionEncoder(4, 8, 6, 3)):
        twin = type(part)(**part.config)
        assert [p.shape for p in twin.parameters()] == [p.shape for p in part.parameters()]


def test_action_encoder_is_a_mix_and_an_mlp_with_silu() -> None:
    """The formula by hand, for any leading dims."""
    part, actions = (
        ActionEncoder(action_dim=4, dim=6, hidden_dim=5, mix_dim=3),
        torch.randn(2, 7, 4),
    )
    hidden = part.expand(part.mix(actions))
    expected = part.contract(hidden * torch.sigmoid(hidden))
    torch.testing.assert_close(part(actions), expected)
    torch.testing.assert_close(part(actions[0, 0]), expected[0, 0])


def test_actions_of_another_width_or_dtype_are_refused() -> None:
    """The message names the width and what came."""
    with pytest.raises(ValueError, match=r"actions must be .*\[\.\.\., 10\], got .*\[2, 3, 4\]"):
        ActionEncoder(10, 8)(torch.zeros(2, 3, 4))
    with pytest.raises(TypeError, match=r"actions must be a tensor of floats .*, got torch.int64"):
        ActionEncoder(10, 8)(torch.zeros(2, 3, 10, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_uint8_frames_are_taken_in_any_precision(dtype: torch.dtype) -> None:
    """A model in half precision embeds bytes as it embeds the same frames in 0…1."""
    torch.manual_seed(0)
    encoder = ConvEncoder(image_size=16, dim=8).to(dtype).eval()
    frames = torch.randint(256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        found = encoder(frames)
        assert found.dtype == dtype
        assert torch.equal(found, encoder(frames.to(dtype) / 255))


def test_floats_up_to_255_are_named_until_they_are_right() -> None:
    """Each batch of floats beyond 2 is warned of; the first right one ends the watch."""
    encoder = ConvEncoder(image_size=16, dim=8)
    frames = torch.randint(256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"frames must be .* up to 25\d; divide it by 255"):
            encoder(frames.float())
    encoder(frames)
    encoder(1.2 * frames / 255)
    encoder(frames.float())


def test_states_in_any_units_are_standardised_by_their_batch() -> None:
    """A shift and a scale of the states change nothing in training."""
    torch.manual_seed(0)
    encoder, states = StateEncoder(3, 8), torch.randn(64, 3)
    scaled = 1e3 * states + torch.tensor([5e3, -1e3, 0.0])
    torch.testing.assert_close(encoder(scaled), encoder(states), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"states must be .*\[\.\.\., 3\], got .*\[2, 4\]"):
        encoder(torch.zeros(2, 4))


def test_a_fused_encoder_takes_exactly_its_observations() -> None:
    """Embeddings depend on every observation; a missing or unknown name is refused."""
    torch.manual_seed(0)
    encoder = FusedEncoder({"a": StateEncoder(2, 4), "b.c": StateEncoder(3, 5)}, dim=6).eval()
    seen = {"a": torch.randn(2, 3, 2), "b.c": torch.randn(2, 3, 3)}
    z = encoder(seen)
    assert z.shape == (2, 3, 6)
    for name, value in seen.items():
        assert (encoder(seen | {name: value + 1}) != z).any(-1).all()
    for wrong in ({"a": seen["a"]}, seen | {"d": seen["a"]}):
        with pytest.raises(ValueError, match=r"mapping of \['a', 'b.c'\], got"):
            encoder(wrong)
    with pytest.raises(ValueError, match="at least one observation"):
        FusedEncoder({})


def kept_bytes(encoder: torch.nn.Module, frames: torch.Tensor) -> int:
    """What the graph of one call keeps for the backward pass, parameters left out."""
    own, kept = {p.data_ptr() for p in encoder.parameters()}, dict[int, int]()

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        z = encoder(frames)
    assert z.requires_grad
    return sum(kept.values())


def test_parts_change_neither_gradient_nor_batch_statistics(
    encoder: ViTEncoder | ConvEncoder,
) -> None:
    """Frames embedded in three uneven parts: value, gradients and running values in float64."""
    encoder.double().train()
    frames, found = pixels(encoder, 4, 2), []
    start = {k: v.clone() for k, v in encoder.state_dict().items()}
    for parts in (1, 3):
        encoder.load_state_dict(start)
        encoder.zero_grad()
        encoder.parts = parts
        z = encoder(frames)
        z.pow(3).sum().backward()
        gradients = {f"grad.{n}": p.grad for n, p in encoder.named_parameters()}
        found.append(
            {"z": z.detach()} | gradients | {k: v.clone() for k, v in encoder.state_dict().items()}
        )
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_of_several_parts_one_is_kept(encoder: ViTEncoder | ConvEncoder) -> None:
    """With eight parts the graph holds the head's values of all frames, of the rest an eighth."""
    encoder.train()
    head, frames = encoder.projector, pixels(encoder, 32)
    whole = kept_bytes(encoder, frames)
    z = torch.randn(32, encoder.dim, requires_grad=True)
    own = kept_bytes(head, z)
    encoder.parts = 8
    # Of the other parts, their frames: bytes.
    rest = kept_bytes(encoder, frames) - own - frames.numel()
    assert rest < (whole - own) / 4
