"""What a model has learned: probes, violation of expectation, straight paths, predictions."""

from worldmodel.study.estimates import (
    Estimate,
    PairedTest,
    bootstrap,
    jackknife,
    mean_estimate,
    paired_test,
    proportion,
    rank_correlation,
    sign_test,
)
from worldmodel.study.paths import (
    ActionRanks,
    HorizonErrors,
    background,
    embed,
    open_loop,
    rank_actions,
    recolour,
    splice,
    straightness,
    surprise,
)
from worldmodel.study.probes import (
    Decoder,
    Guesses,
    ProbeScore,
    fit_decoder,
    principal_components,
    probe_guesses,
    score_guesses,
)

__all__ = [
    "ActionRanks", "Decoder", "Estimate", "Guesses", "HorizonErrors", "PairedTest", "ProbeScore",
    "background", "bootstrap", "embed", "fit_decoder", "jackknife", "mean_estimate", "open_loop",
    "paired_test", "principal_components", "probe_guesses", "proportion", "rank_actions",
    "rank_correlation", "recolour", "score_guesses", "sign_test", "splice", "straightness",
    "surprise",
]  # fmt: skip
