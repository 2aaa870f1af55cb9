"""What a study finds, as records; a part that has nothing to measure is `Unavailable`.

Letters: E episodes, T frames, Q quantities of the true state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel.study import Estimate, PairedTest, ProbeScore

__all__ = [
    "Checkpoint",
    "DataFacts",
    "Foresight",
    "LatentMap",
    "Part",
    "Pictures",
    "Probes",
    "Quantity",
    "RunFacts",
    "Spread",
    "Straightness",
    "Strip",
    "StudyReport",
    "Unavailable",
    "Violations",
    "plain",
]

Pixels = NDArray[np.uint8]
_SHOWN = ("pictures", "points", "states", "time")
"""Fields for the page alone: they are no figures, and heavy in JSON."""


class Unavailable(NamedTuple):
    """Why a part could not be measured."""

    unavailable: str


class Quantity(NamedTuple):
    """How well probes read one quantity; what does not vary in the data has nothing to read."""

    name: str
    varies: bool
    constant: ProbeScore
    linear: ProbeScore
    mlp: ProbeScore


class Probes(NamedTuple):
    """Is the true state in the embedding, and is it easy to read?

    Attributes:
        quantities: Q of them.
        train_episodes: that the probes were fitted on.
        test_episodes: that they were scored on.
        coordinates: of the embedding as the probes saw it.
        unit: of the errors, in words.
    """

    quantities: list[Quantity]
    train_episodes: int
    test_episodes: int
    coordinates: int
    unit: str


class Foresight(NamedTuple):
    """Errors of a rollout that never looks again, by steps ahead, and of two blind guesses.

    Attributes:
        known_frames: given to the model.
        horizons: steps ahead of each error.
        raw_steps_per_horizon: raw actions in one of them.
        model: error of the rollout.
        copy: of the last known embedding.
        mean: of the mean embedding.
        first_horizon_no_better_than_copying: None if there is none.
        unit: of the errors, in words.
    """

    known_frames: int
    horizons: list[int]
    raw_steps_per_horizon: int
    model: list[Estimate]
    copy: list[Estimate]
    mean: list[Estimate]
    first_horizon_no_better_than_copying: int | None
    unit: str


class Violations(NamedTuple):
    """Surprise at the impossible.

    Attributes:
        at_frame: where it happens.
        frames: of each surprise.
        surprise: by condition.
        tests: by the two conditions they compare, at that frame.
        pixels_changed: share of a frame's pixels, by condition.
        teleport_is: the jump, in words.
        unit: of surprise, in words.
        pictures: [2, H, W, 3] by condition, before and after.
    """

    at_frame: int
    frames: list[int]
    surprise: dict[str, list[Estimate]]
    tests: dict[str, PairedTest]
    pixels_changed: dict[str, Estimate]
    teleport_is: str
    unit: str
    pictures: dict[str, Pixels]


class Checkpoint(NamedTuple):
    """Straightness at one step of the training."""

    step: int
    straightness: Estimate


class Straightness(NamedTuple):
    """Mean cosine of consecutive latent steps, of the model and of what it is compared with."""

    trained: Estimate
    true_states: Estimate | None
    untrained: Estimate | None
    checkpoints: list[Checkpoint]


class Spread(NamedTuple):
    """How many directions the embedding uses.

    Attributes:
        effective_rank: of held-out embeddings.
        embedding_dims: D.
        spectrum: shares of the variance, largest first, at most 64.
        report: scalars of `sigreg.Report`.
        verdict: its words.
    """

    effective_rank: Estimate
    embedding_dims: int
    spectrum: list[float]
    report: dict[str, float]
    verdict: str


class Strip(NamedTuple):
    """One episode, frame by frame: truth, decoded embeddings, decoded rollout (None: known)."""

    truth: Pixels
    seen: Pixels
    dreamt: list[Pixels | None]


class Pictures(NamedTuple):
    """What a decoder sees in embeddings and rollouts.

    Attributes:
        explained_share: of the variance of pixels around the mean picture.
        pixel_mse: of decoded embeddings.
        mean_picture_mse: of the mean picture.
        side: of a picture.
        known_frames: given to the rollout.
        columns: steps ahead of the last known frame.
        steps: of the decoder's training.
        pictures: of the first episodes.
    """

    explained_share: Estimate
    pixel_mse: Estimate
    mean_picture_mse: Estimate
    side: int
    known_frames: int
    columns: list[int]
    steps: int
    pictures: list[Strip]


class LatentMap(NamedTuple):
    """Embeddings along their two directions of largest variance.

    Attributes:
        share: of the variance, by direction.
        coloured_by: what gives a point its colour.
        points: [N, 2], or [N, 1] of an embedding of one dim.
        states: [N, 1 or 2], the first dims of the true state; None without states.
        time: [N], frame within its episode.
        in_picture: whether states are places in the picture, y downwards.
    """

    share: list[float]
    coloured_by: str
    points: NDArray[np.float64]
    states: NDArray[np.float64] | None
    time: NDArray[np.float64]
    in_picture: bool


Part = Probes | Foresight | Violations | Straightness | Spread | Pictures | LatentMap | Unavailable


class RunFacts(NamedTuple):
    """Which run was studied; `weights` is the digest of its model."""

    name: str
    objective: str
    world: str | None
    parameters: int
    embedding_dims: int
    weights: str


class DataFacts(NamedTuple):
    """What it was studied on."""

    source: str
    fit_episodes: int
    test_episodes: int
    frames_per_episode: int
    frameskip: int


class StudyReport(NamedTuple):
    """Everything a study found.

    Attributes:
        run: RunFacts.
        data: DataFacts.
        notes: what a reader should know first.
        parts: by name.
        seed: of episodes, fits and intervals.
        seconds: it took.
        versions: of this library, torch and Python.
    """

    run: RunFacts
    data: DataFacts
    notes: list[str]
    parts: Mapping[str, Part]
    seed: int
    seconds: float
    versions: dict[str, str]


def plain(value: object) -> Any:
    """What JSON can hold: records to dicts, NaN to null, six digits; pictures are left out."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain({k: v for k, v in value._asdict().items() if k not in _SHOWN})
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
