"""Training: its schedule, its batches, a state that resumes bit for bit, and when it stops."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from worldmodel import (
    ActionEncoder,
    Batch,
    CausalPredictor,
    ConvEncoder,
    Losses,
    WorldModel,
    jepa_loss,
)
from worldmodel.apps.cli import kill_is_interrupt
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train import loop as train_loop
from worldmodel.apps.train.command import whole_steps
from worldmodel.apps.train.loop import NonFiniteError, Training, learning_rate, read_state
from worldmodel.apps.train.reports import Reports, read_table
from worldmodel.data import ActionScale, Episodes, Windows
from worldmodel.worlds import TwoRoom, collect


def make_model(dim: int = 8) -> WorldModel:
    """A model that trains in milliseconds a step; seeded, so that two of them are equal."""
    torch.manual_seed(1)
    return WorldModel(
        encoder=ConvEncoder(image_size=16, patch_size=4, width=4, dim=dim, projector_dim=16),
        action_encoder=ActionEncoder(action_dim=4, dim=dim, hidden_dim=16),
        predictor=CausalPredictor(
            dim=dim, depth=1, heads=2, history=3, dim_head=4, mlp_dim=16, projector_dim=16
        ),
    )


def make_windows(num: int = 6, size: int = 16) -> Windows:
    """Walks in Two-Room."""
    world = TwoRoom(size)
    walks = collect(world, num, 12, seed=0, bump=0.5)
    nowhere = np.full((num, 1, 2), np.nan, np.float32)
    episodes = Episodes(
        frames=torch.from_numpy(world.render(walks.states.reshape(-1, 2))),
        actions=torch.from_numpy(np.concatenate([walks.actions, nowhere], 1).reshape(-1, 2)),
        lengths=torch.full((num,), 13),
    )
    return Windows(episodes, num_frames=4, frameskip=2, scale=ActionScale.fit(episodes))


def told(**changes: Any) -> Recipe:
    """The published recipe in float32, and some changes."""
    return Recipe(precision="float32", **changes)


RECIPE = told(steps=6, batch_size=8, learning_rate=1e-3, num_proj=8, warmup=0.3, seed=5)


def weights(training: Training) -> dict[str, Tensor]:
    """A copy of everything the model holds, batch statistics too."""
    return {k: v.clone() for k, v in training.model.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Whether two states are bit-identical."""
    return all(torch.equal(one[k], two[k]) for k in one | two)


def test_rate_rises_linearly_then_falls_as_a_cosine_to_zero() -> None:
    """Ten steps of warm-up to the peak, half of it halfway down, 0 behind the last step."""
    config = told(steps=110, learning_rate=0.4, warmup=10 / 110)
    for step in range(10):
        assert learning_rate(config, step) == pytest.approx(0.4 * (step + 1) / 10)
    assert learning_rate(config, 10) == pytest.approx(0.4)
    assert learning_rate(config, 60) == pytest.approx(0.2)
    assert learning_rate(config, 10 + 25) == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert learning_rate(config, 110) == pytest.approx(0, abs=1e-12)
    falling = [learning_rate(config, step) for step in range(10, 111)]
    assert falling == sorted(falling, reverse=True)


def test_each_step_uses_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer's learning rate at step s is `rate(s)`."""
    training, seen = Training(make_model(), make_windows(), RECIPE), []
    step = training.optimizer.step
    monkeypatch.setattr(
        training.optimizer,
        "step",
        lambda: (seen.append(training.optimizer.param_groups[0]["lr"]), step()),
    )
    list(training.run())
    assert seen == [learning_rate(RECIPE, s) for s in range(6)]


def test_a_schedule_that_begins_later_is_the_same_schedule() -> None:
    """A run that was finished at step 50 and gets 110 more goes through the rates of 110 steps."""
    alone = told(steps=110, learning_rate=0.4, warmup=0.1)
    later = told(steps=160, learning_rate=0.4, warmup=0.1, schedule_from=50)
    assert [learning_rate(later, 50 + s) for s in range(110)] == [
        learning_rate(alone, s) for s in range(110)
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("batch_size", 0), ("num_proj", 0), ("learning_rate", 0.0), ("clip", math.nan),
     ("learning_rate", math.inf), ("weight", math.nan), ("weight", -0.1),
     ("weight_decay", math.inf), ("warmup", 1.5), ("seed", -1), ("seed", 2**63)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    """The record refuses them by name, NaN and infinity too."""
    with pytest.raises(ValidationError, match=name):
        told(**{"steps": 1, name: value})


def test_what_is_not_decided_is_refused() -> None:
    """The loop is told its number of steps; precision "auto" is what the device has."""
    with pytest.raises(ValueError, match="steps must be a number here, got none"):
        Training(make_model(), make_windows(), told())
    training = Training(make_model(), make_windows(), Recipe(steps=3, batch_size=8))
    assert training.recipe.precision == "float32"


@pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1])
def test_every_seed_trains(seed: int) -> None:
    """Seeds that follow from the largest one fit torch's generators too."""
    training = Training(make_model(), make_windows(), told(steps=7, batch_size=8, seed=seed))
    assert len(list(training.run())) == 7


def test_batches_are_a_function_of_seed_and_step() -> None:
    """Asked in any order, a step has its windows; another seed has others."""
    windows = make_windows()
    training = Training(make_model(), windows, RECIPE)
    forward = [training.order.batch(step).tolist() for step in range(12)]
    twin = Training(make_model(), windows, RECIPE)
    assert [twin.order.batch(step).tolist() for step in range(11, -1, -1)] == forward[::-1]
    other = Training(make_model(), windows, told(steps=6, batch_size=8, seed=6))
    assert other.order.batch(0).tolist() != forward[0]


def test_each_epoch_visits_every_window_once_in_an_order_of_its_own() -> None:
    """With a batch that divides the data nothing is left out and nothing repeated."""
    windows = make_windows()
    assert len(windows) == 36
    training = Training(make_model(), windows, told(steps=18, batch_size=6))
    epochs = [torch.cat([training.order.batch(6 * e + i) for i in range(6)]) for e in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(36))
    assert not torch.equal(epochs[0], epochs[1])


def test_more_batch_than_windows_is_refused() -> None:
    """The message holds both numbers."""
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 36 windows, got 37"):
        Training(make_model(), make_windows(), told(steps=1, batch_size=37))


def test_training_is_deterministic_and_reports_every_step() -> None:
    """Two runs of one seed end in the same weights; `step` counts from 1 to the last."""
    seen: list[int] = []
    ends = []
    for _ in range(2):
        training = Training(make_model(), make_windows(), RECIPE)
        seen += [training.step for _ in training.run()]
        ends.append(weights(training))
    assert same(*ends)
    assert seen == [1, 2, 3, 4, 5, 6] * 2
    assert not same(ends[0], make_model().state_dict())


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Weights, batch statistics, moments, dropout and directions all go on where they were."""
    whole = Training(make_model(), make_windows(), RECIPE)
    list(whole.run())
    first = Training(make_model(), make_windows(), RECIPE)
    for _ in first.run():
        if first.step == 3:
            break
    first.save(tmp_path / "state.safetensors")
    torch.manual_seed(99)
    torch.rand(7)
    second = Training(make_model(), make_windows(), RECIPE)
    second.restore(tmp_path / "state.safetensors")
    assert second.step == 3
    list(second.run())
    assert same(weights(whole), weights(second))
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_a_step_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Ctrl-C or SIGTERM in step 3 raises behind it, and the resumed run ends the same."""
    whole = Training(make_model(), make_windows(), RECIPE)
    list(whole.run())
    first = Training(make_model(), make_windows(), RECIPE)
    loss = first.objective

    def interrupted(*args: Any) -> Losses:
        losses = loss(*args)  # batch statistics, dropout and directions have moved on by now
        if first.step == 2:
            signal.raise_signal(number)
        return losses

    monkeypatch.setattr(first, "objective", interrupted)

    def steps() -> None:
        with whole_steps() as release:
            for _ in first.run():
                release()

    with kill_is_interrupt(), pytest.raises(KeyboardInterrupt):
        steps()
    assert first.step == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.undo()
    first.save(tmp_path / "state.safetensors")
    second = Training(make_model(), make_windows(), RECIPE)
    second.restore(tmp_path / "state.safetensors")
    list(second.run())
    assert same(weights(whole), weights(second))


def test_a_batch_in_parts_trains_the_same_weights(tmp_path: Path) -> None:
    """SIGReg and batch norm see the whole batch: steps in four parts are steps in one.

    The mean of four losses of a quarter each, with their own N, is another one. A run in parts
    resumes bit for bit.
    """
    exact, ends = told(steps=2, batch_size=8, learning_rate=1e-4, num_proj=8), []
    for parts in (1, 4):
        training = Training(
            make_model().double(), make_windows(), exact, objective=in_double, accumulate=parts
        )
        list(training.run())
        ends.append(weights(training))
    for name, value in ends[0].items():
        # AdamW divides rounding by rounding where batch norm makes a bias idle.
        torch.testing.assert_close(ends[1][name], value, rtol=1e-6, atol=1e-6, msg=name)

    training, batch = Training(make_model(), make_windows(), exact), make_windows().batch
    quarters = [training.losses(batch(torch.arange(i, i + 2))) for i in range(0, 8, 2)]
    mean = sum(float(losses.regularization) for losses in quarters) / 4
    assert abs(mean / float(training.losses(batch(torch.arange(8))).regularization) - 1) > 0.1

    whole = Training(make_model(), make_windows(), RECIPE, accumulate=3)
    list(whole.run())
    first = Training(make_model(), make_windows(), RECIPE, accumulate=3)
    next(first.run())
    first.save(tmp_path / "state.safetensors")
    second = Training(make_model(), make_windows(), RECIPE, accumulate=3)
    second.restore(tmp_path / "state.safetensors")
    list(second.run())
    assert same(weights(whole), weights(second))


def test_a_run_goes_on_with_its_frames_in_memory_bit_for_bit(tmp_path: Path) -> None:
    """Windows that were copied to the device train the weights of windows that were not."""
    whole = Training(make_model(), make_windows(), RECIPE)
    list(whole.run())
    first = Training(make_model(), make_windows(), RECIPE)
    next(first.run())
    first.save(tmp_path / "state.safetensors")
    second = Training(make_model(), make_windows().on(torch.device("cpu")), RECIPE)
    second.restore(tmp_path / "state.safetensors")
    list(second.run())
    assert same(weights(whole), weights(second))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
# The compiler looks for gradients of every tensor that it meets.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_network_trains_the_same_weights(tmp_path: Path) -> None:
    """Up to rounding, with dropout, augmentation and parts; names stay, and a run may switch."""
    exact, ends = told(steps=3, batch_size=8, learning_rate=1e-4, num_proj=8), []
    options: dict[str, Any] = {"augment": {"shift": 2.0}, "accumulate": 2, "objective": in_double}
    for compile in (False, True):
        model = make_model().double()
        training = Training(model, make_windows(), exact, compile=compile, **options)
        if compile:
            training.restore(tmp_path / "state.safetensors")
        for _ in training.run():
            if training.step == 1 and not compile:
                training.save(tmp_path / "state.safetensors")
        ends.append(weights(training))
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_blocks_are_compiled_one_by_one_and_other_parts_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So blocks of one shape share their code; a machine without a compiler is told in one line."""
    seen: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda piece, **_: seen.append(piece))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = make_model()
    train_loop.compiled(model)
    assert seen == [model.encoder, model.action_encoder, *model.predictor.blocks]

    def missing(*_: Any, **__: Any) -> None:
        raise RuntimeError("No working C++ compiler found\nin a list")

    monkeypatch.setattr(torch, "compile", missing)
    told = r"compile needs a compiler: gcc.* said: No working C\+\+ compiler found in a list$"
    with pytest.raises(ValueError, match=told):
        Training(make_model(), make_windows(), RECIPE, compile=True)


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: values that become Python numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "_unique2"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def fused(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Training:
    """A training whose AdamW is fused, as on a GPU."""
    monkeypatch.setattr(train_loop, "fuses", lambda _: True)
    return Training(make_model(), make_windows(), RECIPE, **options)


def test_a_step_waits_for_nothing_where_adamw_is_fused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports, augmentation and parts included, only a row of the table makes the host wait."""
    training = fused(monkeypatch, augment={"shift": 2.0, "contrast": 0.2}, accumulate=2)
    counts = []
    with Reports(training, tmp_path, every=3) as reports:
        steps = training.run()
        for _ in range(5):
            with Waits() as waits:
                reports.step(next(steps))
            counts.append(len(waits.seen))
    assert [count > 0 for count in counts] == [False, False, True, False, False]


def test_fused_steps_are_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel's weights after a step are those of the plain update, but for rounding."""
    plain, quick = Training(make_model(), make_windows(), RECIPE), fused(monkeypatch)
    ends = []
    for training in (plain, quick):
        torch.manual_seed(0)
        next(training.run())
        ends.append(weights(training))
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("row", [1, 3, 100])
def test_what_is_not_finite_is_left_out_until_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    """NaN in batch 2 stops a fused run with the state of a run that ended behind step 2.

    Weights, moments, batch statistics, directions, random state, and the table's open row.
    """
    clean = fused(monkeypatch)
    with Reports(clean, tmp_path / "clean", every=row) as reports:
        for losses in clean.run():
            reports.step(losses)
            if clean.step == 2:
                break
        clean.save(tmp_path / "clean.safetensors", reports.state())
    training, windows = fused(monkeypatch), make_windows()
    training.windows = windows
    batch = windows.batch

    def dirty(index: Tensor) -> Batch:
        found = batch(index)
        if torch.equal(index, training.order.batch(2)):
            found.actions[3, 1, 0] = math.nan
        return found

    monkeypatch.setattr(windows, "batch", dirty)
    told = r"stopped at step 3 of 6: prediction loss is not finite .*its actions hold NaN"
    with Reports(training, tmp_path / "dirty", every=row) as reports:
        with pytest.raises(NonFiniteError, match=told):
            list(map(reports.step, training.run()))
        assert training.step == 2
        training.save(tmp_path / "dirty.safetensors", reports.state())
    one, two = (read_state(tmp_path / f"{name}.safetensors") for name in ("clean", "dirty"))
    assert same(one[0], two[0])
    assert one[1] == two[1]
    cells = [read_table(tmp_path / name / "curves.csv") for name in ("clean", "dirty")]
    assert all(v == cells[1][k] for k, v in cells[0].items() if k != "windows_per_second")


def in_double(model: Any, batch: Batch, regularizer: Any, weight: float) -> Losses:
    """The default objective on actions in float64."""
    return jepa_loss(model, Batch(batch.frames, batch.actions.double()), regularizer, weight)


def test_parts_that_cannot_be_are_refused() -> None:
    """More parts than windows, and an encoder that has none, are each named."""
    with pytest.raises(ValueError, match=r"accumulate must be at most the 8 windows .*, got 9"):
        Training(make_model(), make_windows(), RECIPE, accumulate=9)
    model = make_model()
    model.encoder = torch.nn.Identity()
    with pytest.raises(TypeError, match=r"encoder that is contract\.Parted, got Identity"):
        Training(model, make_windows(), RECIPE, accumulate=2)


def test_another_objective_takes_the_place_of_the_default() -> None:
    """It is given the model, the batch, the regularizer and λ, and its total is descended."""
    seen: list[tuple[Any, ...]] = []

    def objective(*args: Any) -> Losses:
        seen.append(args)
        model, batch, _, _ = args
        error = (model.encode(batch.frames) - 1).square().mean()
        return Losses(error, error.detach(), torch.zeros(()), torch.zeros(8, 4, 8))

    regularizer, totals = torch.nn.Identity(), []
    training = Training(
        make_model(), make_windows(), RECIPE, objective=objective, regularizer=regularizer
    )
    totals += [float(losses.total.detach()) for losses in training.run()]
    assert all(args[0] is training.model for args in seen)
    assert all(args[2] is regularizer and args[3] == RECIPE.weight for args in seen)
    assert [args[1].frames.shape[0] for args in seen] == [RECIPE.batch_size] * RECIPE.steps
    assert totals[-1] < totals[0]


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A missing file, other settings, another model and a damaged file are each named."""
    path = tmp_path / "state.safetensors"
    training = Training(make_model(), make_windows(), RECIPE)
    with pytest.raises(FileNotFoundError, match=r"no training state .*state\.safetensors"):
        training.restore(path)
    training.save(path)
    other = Training(make_model(), make_windows(), told(steps=6, batch_size=8, num_proj=8))
    with pytest.raises(ValueError, match=r"keep the settings in.*learning_rate 0\.001 → 5e-05"):
        other.restore(path)
    with pytest.raises(ValueError, match=r"state\.safetensors is of another model"):
        Training(make_model(dim=12), make_windows(), RECIPE).restore(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state\.safetensors is damaged"):
        training.restore(path)


def test_nan_in_the_data_stops_training_and_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the term, the step, the batch and the input, and no step is taken."""
    training, windows = Training(make_model(), make_windows(), RECIPE), make_windows()
    monkeypatch.setattr(training, "windows", windows)
    clean = windows.batch

    def dirty(index: Tensor) -> Batch:
        batch = clean(index)
        if training.step == 2:
            batch.actions[3, 1, 0] = math.nan
        return batch

    monkeypatch.setattr(windows, "batch", dirty)
    with pytest.raises(NonFiniteError) as error:
        list(training.run())
    text = str(error.value)
    assert "stopped at step 3 of 6: prediction loss is not finite on batch 2" in text
    assert "its actions hold NaN or inf" in text
    assert "SIGReg" not in text
    assert training.step == 2
    assert all(bool(p.isfinite().all()) for p in training.model.parameters())


def test_diverged_weights_stop_training_and_are_told_from_bad_data() -> None:
    """Where the data are finite the message blames the weights and says what to lower."""
    training = Training(make_model(), make_windows(), RECIPE)
    with torch.no_grad():
        training.model.encoder.embed.weight.fill_(math.inf)
    with pytest.raises(NonFiniteError, match=r"prediction loss and SIGReg.*weights have diverged"):
        list(training.run())


@pytest.mark.slow
def test_without_sigreg_the_embeddings_collapse() -> None:
    """With λ = 0 their spread shrinks to a fraction of what SIGReg keeps on the same batches.

    All directions shrink alike at this size: the effective rank of what is left does not tell.
    """
    windows, spread = make_windows(40), {}
    for weight in (0.0, 0.1):
        config = told(
            steps=100, batch_size=64, learning_rate=3e-3, weight=weight, num_proj=64, warmup=0.1
        )
        training = Training(make_model(dim=16), windows, config)
        list(training.run())
        with torch.no_grad():
            z = training.model.eval().encode(windows.batch(torch.arange(200)).frames).flatten(0, 1)
        spread[weight] = float(z.std(0).mean())
    assert spread[0.1] > 0.5
    assert spread[0.0] < 0.2 * spread[0.1]
