"""`worldmodel tune-lambda`: choose λ by bisection, in short runs judged on held-out episodes.

More weight on SIGReg lowers what the distribution falls short of and raises what the prediction
falls short of. Both are without units, each about 1 at worst and 0 at best:

    u(λ) = |ẑ_{t+1} − z_{t+1}|² / |z_t − z_{t+1}|²     prediction, against predicting no change
    c(λ) = (SIGReg − floor) / (collapse − floor)        distribution, against a collapse

The λ that makes the larger of the two smallest is where they meet: the sign change of u − c.
docs/tune-lambda.md says why.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sigreg import SIGReg, collapse_value, effective_rank, noise_floor
from worldmodel._files import write_atomically
from worldmodel.apps._interrupt import whole_steps
from worldmodel.apps.demo import collected, seed_for
from worldmodel.apps.devices import device_of
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.parsing import check_kept, complete
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import Ranks
from worldmodel.apps.report import render, save_chart, tune_chart, write_index
from worldmodel.apps.settings import BUILT_IN, DemoSettings, TrainSettings, TuneSettings
from worldmodel.apps.train.material import TrainMaterial, cut, open_material
from worldmodel.apps.train.models import begin_training
from worldmodel.data import Windows, split
from worldmodel.model import WorldModel

__all__ = ["Bisection", "Trial", "judge", "run", "run_trial", "tune_material"]

_SETTINGS, _TRIALS, _CHART = "tune-lambda.json", "tune.json", "tune.png"
_BLOCK = 64  # held-out windows encoded at a time


@dataclass
class Bisection:
    """Where a function of a positive number changes sign, by halving on its logarithm.

        evaluations = 2 + n   leave   high / low = (high₀ / low₀)^(1 / 2ⁿ)

    Attributes:
        low: the function is negative here, once both ends are known.
        high: here it is not.
        evaluations: of the function, both ends included; at least 3.
        evaluated: argument -> value, in the order of evaluation.
    """

    low: float
    high: float
    evaluations: int
    evaluated: dict[float, float] = field(default_factory=dict)

    def ask(self) -> float | None:
        """Where to evaluate next; None at the end.

        Raises: ValueError if the sign is the same at both ends.
        """
        if len(self.evaluated) < 2:
            return self.high if self.evaluated else self.low
        if len(self.evaluated) == 2:
            first, last = self.evaluated.values()
            if not first < 0 <= last:
                side = "below low" if first >= 0 else "above high"
                raise ValueError(
                    f"the sign must change from negative to positive between low and high, got "
                    f"{first:.3g} at {self.low:g} and {last:.3g} at {self.high:g}: what is sought "
                    f"lies {side}"
                )
        return self.middle if len(self.evaluated) < self.evaluations else None

    def tell(self, argument: float, value: float) -> None:
        """What the function was where `ask` said."""
        self.evaluated[argument] = value
        if len(self.evaluated) > 2 and value < 0:
            self.low = argument
        elif len(self.evaluated) > 2:
            self.high = argument

    @property
    def middle(self) -> float:
        """The geometric middle: off by at most a factor of √(high / low)."""
        return math.sqrt(self.low * self.high)

    @property
    def monotone(self) -> bool:
        """Whether the evaluated signs change once, from negative to not, as they should."""
        signs = [self.evaluated[x] < 0 for x in sorted(self.evaluated)]
        return signs == sorted(signs, reverse=True)


class Trial(NamedTuple):
    """One short run, judged on held-out windows.

    Attributes:
        weight: λ.
        prediction: u, the error as a fraction of that of predicting no change.
        distribution: c, SIGReg's excess over its floor as a fraction of a collapse's.
        error: mean square prediction error.
        sigreg: the statistic.
        effective_rank: of the embeddings.
        seconds: the run took.
    """

    weight: float
    prediction: float
    distribution: float
    error: float
    sigreg: float
    effective_rank: float
    seconds: float

    @property
    def gap(self) -> float:
        """u − c: negative while λ is too small."""
        return self.prediction - self.distribution


def run(settings: TuneSettings) -> int:
    """Find λ between `low` and `high`; every trial is kept, and none is made twice."""
    out = settings.out
    with begin_folder(out, _TRIALS, resume=settings.resume, worth=_CHART):
        known = _read(settings) if settings.resume else {}
        own = {"device": device_of(settings.device), "out": out, "workers": 0}
        train = complete(TrainSettings, "train", settings.common(TrainSettings), own)
        material = tune_material(settings, train)
        order = torch.Generator().manual_seed(settings.seed)
        judges = torch.randperm(len(material.held_out), generator=order)[: settings.windows]
        write_json(settings.model_dump(mode="json"), out / _SETTINGS)
        _write(settings, known, None)
        say(
            f"λ between {settings.low:g} and {settings.high:g}, in {settings.runs} runs of "
            f"{settings.steps} steps on {len(material.train):,} windows, judged by "
            f"{len(judges):,} held-out ones"
        )
        search = Bisection(settings.low, settings.high, settings.runs)
        try:
            while (weight := search.ask()) is not None:
                again = "  (known)" if weight in known else ""
                if not again:
                    known[weight] = run_trial(train, material, judges, weight)
                    _write(settings, known, None)
                trial = known[weight]
                search.tell(weight, trial.gap)
                say(
                    f"run {len(search.evaluated)} of {settings.runs}  λ {weight:<8.3g}  prediction "
                    f"{trial.prediction:.3f}  distribution {trial.distribution:.3f}  "
                    f"{'more λ' if trial.gap < 0 else 'less λ'}{again}"
                )
        except KeyboardInterrupt:
            say(f"\ninterrupted; {out / _TRIALS} holds the runs so far, --resume continues them")
            raise
        _write(settings, known, search)
        write_index(out)
    say(f"\n  λ = {search.middle:.3g}   (between {search.low:.3g} and {search.high:.3g})")
    if not search.monotone:
        say("  the runs do not change sides once: with so few steps they are too noisy")
    say(f"  look at {out / 'tune.html'}; all figures are in {out / _TRIALS}")
    return 0


def tune_material(settings: TuneSettings, train: TrainSettings) -> TrainMaterial:
    """Open or collect the episodes that every trial shares, and split them.

    The built-in world gives as many as `worldmodel demo` trains on, and those that judge beside.
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
    """Train from the start at one λ and judge the result; the same numbers every time."""
    began, own = time.perf_counter(), train.model_copy(update={"weight": weight})
    _, training = begin_training(own, material, Ranks(device=train.device))
    with (
        whole_steps() as release,
        Progress(f"λ {weight:.3g}", training.steps) as bar,
        closing(training.run()) as steps,
    ):
        for losses in steps:
            bar.update(prediction=float(losses.prediction), sigreg=float(losses.regularization))
            release()
    with training.precision():
        found = judge(training.model.eval(), material.held_out, judges, train.seed)
    return Trial(weight, **found, seconds=round(time.perf_counter() - began, 1))


@torch.no_grad()
def judge(model: WorldModel, windows: Windows, index: Tensor, seed: int = 0) -> dict[str, float]:
    """What a model falls short of on held-out windows, and what that is made of.

    Args:
        model: WorldModel in evaluation mode.
        windows: Windows of episodes the model has not seen.
        index: [N] of them, N at least 2.
        seed: of SIGReg's directions.
    Returns: prediction, distribution, error, sigreg and effective_rank, as in Trial.
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
        # A collapse to the last bit leaves nothing to predict: standing still is right.
        "prediction": error / standing if standing > 0 else 1.0,
        "distribution": (statistic - floor) / (collapse_value(len(z)) - floor),
        "error": error,
        "sigreg": statistic,
        "effective_rank": float(effective_rank(z.flatten(0, 1).T.cov())),
    }


def _read(settings: TuneSettings) -> dict[float, Trial]:
    """The trials of a folder that is continued, by λ.

    Raises: ValueError if the file is damaged or of other settings.
    """
    path = settings.out / _TRIALS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = TuneSettings.model_validate(content["config"])
        trials = [Trial(**{k: float(t[k]) for k in Trial._fields}) for t in content["trials"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    check_kept(settings, before)
    return {trial.weight: trial for trial in trials}


def _write(settings: TuneSettings, trials: Mapping[float, Trial], search: Bisection | None) -> None:
    """The trials so far, their chart and their page; the result too where there is one."""
    out = settings.out
    rows = [t._asdict() | {"gap": t.gap} for t in trials.values()]
    content: dict[str, object] = {"config": settings.model_dump(mode="json"), "trials": rows}
    if search is not None:
        content["result"] = {
            "weight": search.middle, "low": search.low, "high": search.high,
            "monotone": search.monotone,
        }  # fmt: skip
    write_json(content, out / _TRIALS)
    if rows:
        save_chart(tune_chart(rows, None if search is None else search.middle), out / _CHART)
        write_atomically(out / "tune.html", render("tune.html", tune=content).encode())
