"""What a study finds: one record a part; a part that has nothing to measure is `Unavailable`.

The figures have the names that study.json has; pictures and points are for the page alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.study import Estimate, PairedTest, ProbeScore

__all__ = ["Checkpoint", "DataFacts", "Foresight", "LatentMap", "Part", "Pictures", "Probes",
           "Quantity", "RunFacts", "Spread", "Straightness", "Strip", "StudyReport",
           "Unavailable", "Violations", "plain"]  # fmt: skip

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
_SHOWN = ("pictures", "points", "states", "time", "in_picture")


class Unavailable(NamedTuple):
    """Why a part could not be measured."""

    unavailable: str


class Quantity(NamedTuple):
    """How well a blind guess, a line and a small network read one quantity of the state."""

    name: str
    varies: bool
    constant: ProbeScore
    linear: ProbeScore
    mlp: ProbeScore


class Probes(NamedTuple):
    """Probes of the true state, fitted and scored on different episodes."""

    quantities: list[Quantity]
    train_episodes: int
    test_episodes: int
    coordinates: int
    unit: str


class Foresight(NamedTuple):
    """Errors of a rollout that never looks again and of two blind guesses, by steps ahead."""

    known_frames: int
    horizons: list[int]
    raw_steps_per_horizon: int
    model: list[Estimate]
    copy: list[Estimate]
    mean: list[Estimate]
    first_horizon_no_better_than_copying: int | None
    unit: str


class Violations(NamedTuple):
    """Surprise by condition and frame; the tests compare conditions where it happens."""

    at_frame: int
    frames: list[int]
    surprise: dict[str, list[Estimate]]
    tests: dict[str, PairedTest]
    pixels_changed: dict[str, Estimate]
    teleport_is: str
    unit: str
    pictures: dict[str, Pixels]  #: [2, H, W, 3] of each condition, before and after


class Checkpoint(NamedTuple):
    """Straightness at one step of the training."""

    step: int
    straightness: Estimate


class Straightness(NamedTuple):
    """Mean cosine of consecutive steps: of latent paths, of true states, of fresh weights."""

    trained: Estimate
    true_states: Estimate | None
    untrained: Estimate | None
    checkpoints: list[Checkpoint]


class Spread(NamedTuple):
    """Rank and shares of the variance of embeddings, and the scalars of `sigreg.Report`."""

    effective_rank: Estimate
    embedding_dims: int
    spectrum: list[float]
    report: dict[str, float]
    verdict: str


class Strip(NamedTuple):
    """Frames of one episode, decoded embeddings, decoded rollout (None where it was known)."""

    truth: Pixels
    seen: Pixels
    dreamt: list[Pixels | None]


class Pictures(NamedTuple):
    """What a decoder paints, its errors, and which steps ahead the columns show."""

    explained_share: Estimate
    pixel_mse: Estimate
    mean_picture_mse: Estimate
    side: int
    known_frames: int
    columns: list[int]
    steps: int
    pictures: list[Strip]


class LatentMap(NamedTuple):
    """Points along directions of largest variance, beside what is true."""

    share: list[float]
    coloured_by: str
    points: Floats  #: [N, 1 or 2]
    states: Floats | None  #: [N, 1 or 2]; None of data without them
    time: Floats  #: [N], frame in its episode
    in_picture: bool = False  #: whether states are places in the picture, y downwards


Part = Probes | Foresight | Violations | Straightness | Spread | Pictures | LatentMap | Unavailable


class RunFacts(NamedTuple):
    """Which run was studied."""

    name: str
    objective: str
    world: str | None
    parameters: int
    embedding_dims: int
    weights: str  #: digest of its model


class DataFacts(NamedTuple):
    """What it was studied on."""

    source: str
    fit_episodes: int
    test_episodes: int
    frames_per_episode: int
    frameskip: int


class StudyReport(NamedTuple):
    """Everything a study found; notes are what a reader should know first."""

    run: RunFacts
    data: DataFacts
    notes: list[str]
    parts: Mapping[str, Part]
    seed: int
    seconds: float
    versions: dict[str, str]


def plain(value: object) -> Any:
    """What JSON can hold: records to dicts, NaN to null, six digits; no pictures."""
    if isinstance(value, tuple) and type(value) is not tuple:
        record: Any = value
        return plain({k: v for k, v in record._asdict().items() if k not in _SHOWN})
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
