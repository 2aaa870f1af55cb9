"""Windows shifted and recoloured: what is moved where, alike in all frames, from (seed, step)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from worldmodel import Batch
from worldmodel.apps.train.augment import augmented, draws
from worldmodel.apps.train.loop import Training

# By its own name: it is also started as a script.
sys.path.insert(0, str(Path(__file__).parent))
from test_train import RECIPE, make_model, make_windows, same, weights


def frames() -> torch.Tensor:
    """Six windows of two frames of noise."""
    return torch.randint(256, (6, 2, 3, 9, 9), dtype=torch.uint8)


def test_a_shift_is_a_crop_of_the_padded_picture() -> None:
    """Both frames of a window are cut from the same place of their replicate padding."""
    seen = frames()
    chance = draws(3, 7, 6)
    moved = augmented(seen, {"shift": 2}, chance)
    padded = F.pad(seen.float().flatten(0, 1), (2, 2, 2, 2), mode="replicate").unflatten(0, (6, 2))
    found = set()
    for b in range(6):
        crops = {(y, x): padded[b, :, :, y : y + 9, x : x + 9] for y in range(5) for x in range(5)}
        places = [at for at, crop in crops.items() if torch.equal(crop, moved[b].float())]
        assert len(places) == 1
        found.update(places)
    assert len(found) > 1


def test_every_shift_is_as_likely() -> None:
    """Of 25,000 draws each of the 5 × 5 places gets a 25th, within six deviations."""
    picture = torch.arange(25, dtype=torch.uint8).view(1, 1, 1, 5, 5).expand(25_000, 1, 3, 5, 5)
    moved = augmented(picture, {"shift": 2}, draws(0, 0, 25_000))
    # The middle shows what came from where.
    count = moved[:, 0, 0, 2, 2].long().bincount(minlength=25)
    assert (count - 1000).abs().max() < 6 * 31


def test_colour_is_one_line_through_the_windows_mean() -> None:
    """x → m + (1 + c)(x − m) + b with |c| and |b| below their bounds, one line a window."""
    seen, by = 0.3 + 0.4 * torch.rand(50, 2, 3, 4, 4, dtype=torch.float64), {}
    by = {"contrast": 0.2, "brightness": 0.1}
    new = augmented(seen, by, draws(0, 1, 50))
    assert new.dtype == seen.dtype
    mean = seen.flatten(1).mean(1)
    factor = (new.flatten(1).std(1) / seen.flatten(1).std(1)).view(-1, 1)
    add = (new.flatten(1).mean(1) - mean).view(-1, 1)
    line = mean[:, None] + factor * (seen.flatten(1) - mean[:, None]) + add
    torch.testing.assert_close(new.flatten(1), line, rtol=1e-5, atol=1e-5)
    assert 0.1 < (factor - 1).abs().max() <= 0.2 + 1e-6
    assert 0.05 < add.abs().max() <= 0.1 + 1e-6


def test_bytes_are_the_rounded_fractions_and_stay_bytes() -> None:
    """uint8 frames give what their fractions of 255 give, rounded; full colours do not wrap."""
    seen, by, chance = frames(), {"contrast": 1.0, "brightness": 1.0}, draws(0, 2, 6)
    new = augmented(seen, by, chance)
    assert new.dtype == torch.uint8
    # Both round, the fractions in their last bit.
    assert (new.double() - augmented(seen / 255, by, chance).double() * 255).abs().max() < 0.501
    assert (new == 255).any()
    assert (new == 0).any()


def test_nothing_asked_is_nothing_done() -> None:
    """Without a strength the frames are the same tensor; several observations are refused."""
    seen = frames()
    assert augmented(seen, {"shift": 0.0}, draws(0, 0, 6)) is seen
    with pytest.raises(TypeError, match=r"augment needs frames alone, got observations \['eye'\]"):
        augmented({"eye": seen}, {"shift": 2}, draws(0, 0, 6))


def test_draws_are_a_function_of_seed_and_step() -> None:
    """Equal for equal pairs, different for others, and the global stream stays."""
    state = torch.get_rng_state()
    assert torch.equal(draws(1, 2, 4), draws(1, 2, 4))
    assert not torch.equal(draws(1, 2, 4), draws(1, 3, 4))
    assert not torch.equal(draws(1, 2, 4), draws(2, 2, 4))
    assert torch.equal(state, torch.get_rng_state())


def test_augmented_training_resumes_bit_for_bit_and_scores_stay_plain(tmp_path: Path) -> None:
    """Other weights than without it, the same after a pause; losses outside a step are plain."""
    by = {"shift": 2.0, "contrast": 0.3, "brightness": 0.2}
    plain = Training(make_model(), make_windows(), RECIPE)
    list(plain.run())
    whole = Training(make_model(), make_windows(), RECIPE, augment=by)
    list(whole.run())
    assert not same(weights(plain), weights(whole))
    first = Training(make_model(), make_windows(), RECIPE, augment=by)
    for _ in first.run():
        if first.step == 2:
            break
    first.save(tmp_path / "state.safetensors")
    second = Training(make_model(), make_windows(), RECIPE, augment=by)
    second.restore(tmp_path / "state.safetensors")
    list(second.run())
    assert same(weights(whole), weights(second))
    batch = make_windows().batch(torch.arange(8))
    whole.both.eval()
    with torch.no_grad():
        one = whole.losses(batch)
        whole.augment = {}
        assert torch.equal(one.embeddings, whole.losses(batch).embeddings)


def test_a_rank_gets_its_part_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What two ranks see together is what one process sees."""
    alone = Training(make_model(), make_windows(), RECIPE, augment={"shift": 3.0})
    index = alone.order.batch(0)
    batch = alone.windows.batch(index)
    seen = alone._varied(batch).frames
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(alone, "ranks", alone.ranks._replace(rank=rank, size=2))
        half = slice(4 * rank, 4 * rank + 4)
        assert isinstance(batch.frames, torch.Tensor)
        parts.append(alone._varied(Batch(batch.frames[half], batch.actions[half])).frames)
    assert isinstance(seen, torch.Tensor)
    assert torch.equal(torch.cat(parts), seen)  # type: ignore[arg-type]
