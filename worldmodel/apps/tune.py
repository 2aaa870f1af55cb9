"""`worldmodel tune-lambda`: choose λ by bisection, in short runs judged on held-out episodes.

    u(λ) = |ẑ_{t+1} − z_{t+1}|² / |z_t − z_{t+1}|²     prediction, against predicting no change
    c(λ) = (SIGReg − floor) / (collapse − floor)        distribution, against a collapse

u rises with λ and c falls; the larger of the two is smallest where they meet, at the sign change
of u − c. docs/tune-lambda.md says more.
"""

import math
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from pydantic import JsonValue
from torch import Tensor

from sigreg import SIGReg, collapse_value, effective_rank, noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps.demo import collected, seed_for
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import device_of
from worldmodel.apps.parsing import Record, check_kept, complete, kept_settings, read_record
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.report import render, save_chart, tune_chart, write_index
from worldmodel.apps.settings import BUILT_IN, DemoSettings, TrainSettings, TuneSettings
from worldmodel.apps.train.material import TrainMaterial, begin_training, cut, open_material
from worldmodel.data import Windows, split
from worldmodel.model import WorldModel

_SETTINGS, _TRIALS, _CHART = "tune-lambda.json", "tune.json", "tune.png"
_BLOCK = 64  # held-out windows encoded at a time


def bisection(
    function: Callable[[float], float], low: float, high: float, num: int
) -> tuple[float, float]:
    """Find where a function of a positive number changes sign, by bisection of its logarithm.

        num = 2 + n calls   leave   high / low = (high₀ / low₀)^(1 / 2ⁿ)

    Returns: low, where the function is negative, and high, where it is not.
    Raises: ValueError if the sign is the same at both ends.
    """
    first, last = function(low), function(high)
    if not first < 0 <= last:
        side = "below low" if first >= 0 else "above high"
        raise ValueError(
            "the sign must change from negative to positive between low and high, got "
            f"{first:.3g} at {low:g} and {last:.3g} at {high:g}: it changes {side}"
        )
    for _ in range(num - 2):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return low, high


def monotone(values: Mapping[float, float]) -> bool:
    """Whether the values, in order of their arguments, change sign once, from negative on."""
    signs = [values[x] < 0 for x in sorted(values)]
    return signs == sorted(signs, reverse=True)


class Trial(Record):
    """One short run, judged on held-out windows."""

    weight: float  #: λ
    prediction: float  #: u, the error as a fraction of that of predicting no change
    distribution: float  #: c, SIGReg's excess over its floor as a fraction of a collapse's
    gap: float  #: u − c
    error: float  #: mean square prediction error
    sigreg: float  #: the statistic
    effective_rank: float  #: of the embeddings
    seconds: float  #: of the run


class Search(Record):
    """What `tune.json` holds."""

    config: dict[str, JsonValue]  #: the settings
    trials: tuple[Trial, ...]
    result: dict[str, float | bool] | None = None


def run(settings: TuneSettings) -> int:
    """Find λ between `low` and `high`; finished trials are saved and not repeated."""
    out, num = settings.out, settings.runs
    with begin_folder(out, _TRIALS, resume=settings.resume, worth=_CHART):
        known = dict[float, Trial]()
        if settings.resume:
            before = read_record(out / _TRIALS, Search, "record of a search")
            check_kept(settings, kept_settings(TuneSettings, "tune-lambda", out / _SETTINGS))
            known = {trial.weight: trial for trial in before.trials}
        own = {"device": device_of(settings.device), "out": out, "workers": 0}
        train = complete(TrainSettings, "train", settings.common(TrainSettings), own)
        material = tune_material(settings, train)
        order = torch.Generator().manual_seed(settings.seed)
        judges = torch.randperm(len(material.held_out), generator=order)[: settings.windows]
        write_json(settings.model_dump(mode="json"), out / _SETTINGS)
        _write(settings, known, None)
        for note in material.notes:
            say(note)
        say(
            f"λ between {settings.low:g} and {settings.high:g}, in {num} runs of {settings.steps} "
            f"steps on {len(material.train):,} windows, judged on {len(judges):,} held-out ones"
        )
        gaps: dict[float, float] = {}

        def gap(weight: float) -> float:
            if not (again := weight in known):
                known[weight] = run_trial(train, material, judges, weight)
                _write(settings, known, None)
            trial = known[weight]
            gaps[weight] = trial.gap
            told = f"prediction {trial.prediction:.3f}  distribution {trial.distribution:.3f}"
            more = f"{'more λ' if trial.gap < 0 else 'less λ'}{'  (known)' if again else ''}"
            say(f"run {len(gaps)} of {num}  λ {weight:<8.3g}  {told}  {more}")
            return trial.gap

        try:
            low, high = bisection(gap, settings.low, settings.high, num)
        except KeyboardInterrupt:
            say(f"\ninterrupted; {out / _TRIALS} holds the runs so far, --resume continues them")
            raise
        found = math.sqrt(low * high)
        result = {"weight": found, "low": low, "high": high, "monotone": monotone(gaps)}
        _write(settings, known, result)
        write_index(out)
    say(f"\n  λ = {found:.3g}   (between {low:.3g} and {high:.3g})")
    if not monotone(gaps):
        say("  the runs change sides more than once: they are too noisy, raise --steps")
    say(f"  look at {out / 'tune.html'}; all figures are in {out / _TRIALS}")
    return 0


def tune_material(settings: TuneSettings, train: TrainSettings) -> TrainMaterial:
    """Open or collect the episodes that every trial shares, and split them.

    In the built-in world it collects as many as `worldmodel demo` trains on, and held-out ones.
    """
    if settings.data != BUILT_IN:
        return open_material(train)
    demo = DemoSettings(seed=settings.seed)
    num = round(demo.episodes / (1 - settings.held_out))
    episodes = collected(demo, num, seed_for(demo, "train"), bump=demo.bump)
    mine, rest = split(num, settings.held_out, settings.seed)
    return cut(train, (episodes, mine), (episodes, rest))


def run_trial(
    train: TrainSettings, material: TrainMaterial, judges: Tensor, weight: float
) -> Trial:
    """Train from fresh weights at one λ and judge the result; every call gives the same."""
    began, own = time.perf_counter(), train.model_copy(update={"weight": weight})
    _, training = begin_training(own, material, Ranks(device=train.device))
    with Progress(f"λ {weight:.3g}", training.steps) as bar:
        for losses in training.run():
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))
    with training.precision():
        found = judge(training.model.eval(), material.held_out, judges, train.seed)
    gap, took = found["prediction"] - found["distribution"], time.perf_counter() - began
    return Trial(weight=weight, gap=gap, **found, seconds=round(took, 1))


@torch.no_grad()
def judge(model: WorldModel, windows: Windows, index: Tensor, seed: int = 0) -> dict[str, float]:
    """Score a model in evaluation mode on held-out windows, by the names of `Trial`.

    `index` [N] are the windows, N at least 2; `seed` is that of SIGReg's directions.
    """
    device = next(model.parameters()).device
    known, foretold = [], []
    for part in index.split(_BLOCK):
        frames, actions = windows.batch(part).to(device)
        known.append(model.encode(frames))
        foretold.append(model.predict(known[-1][:, :-1], actions[:, :-1]))
    z, predicted = torch.cat(known).float(), torch.cat(foretold).float()
    error, standing = (float(F.mse_loss(guess, z[:, 1:])) for guess in (predicted, z[:, :-1]))
    statistic, floor = float(SIGReg(seed=seed).to(device)(z.transpose(0, 1))), noise_floor()
    return {
        # After a complete collapse, predicting no change is exact; the ratio is set to 1.
        "prediction": error / standing if standing > 0 else 1.0,
        "distribution": (statistic - floor) / (collapse_value(len(z)) - floor),
        "error": error, "sigreg": statistic,
        "effective_rank": float(effective_rank(z.flatten(0, 1).T.cov())),
    }  # fmt: skip


def _write(
    settings: TuneSettings, trials: Mapping[float, Trial], result: dict[str, float | bool] | None
) -> None:
    config, out = settings.model_dump(mode="json"), settings.out
    search = Search(config=config, trials=tuple(trials.values()), result=result)
    content, weight = search.model_dump(exclude_none=True), result["weight"] if result else None
    write_json(content, out / _TRIALS)
    if trials:
        save_chart(tune_chart(content["trials"], weight), out / _CHART)
        write_atomically(out / "tune.html", render("tune.html", tune=content).encode())
