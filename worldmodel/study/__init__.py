"""What has the model learned? Probes, surprise, straight paths, foresight, pictures and maps."""

from worldmodel.study.decoder import Decoder, fit_decoder
from worldmodel.study.embedding import embed
from worldmodel.study.estimates import (
    Estimate,
    PairedTest,
    bootstrap,
    jackknife,
    mean_estimate,
    paired_test,
    proportion,
    sign_test,
)
from worldmodel.study.prediction import HorizonErrors, LatentModel, open_loop, surprise
from worldmodel.study.probes import (
    Guesses,
    Probe,
    ProbeScore,
    principal_components,
    probe,
    probe_guesses,
    score_guesses,
)
from worldmodel.study.straightness import straightness
from worldmodel.study.violations import background, recolour, splice

__all__ = [
    "Decoder",
    "Estimate",
    "Guesses",
    "HorizonErrors",
    "LatentModel",
    "PairedTest",
    "Probe",
    "ProbeScore",
    "background",
    "bootstrap",
    "embed",
    "fit_decoder",
    "jackknife",
    "mean_estimate",
    "open_loop",
    "paired_test",
    "principal_components",
    "probe",
    "probe_guesses",
    "proportion",
    "recolour",
    "score_guesses",
    "sign_test",
    "splice",
    "straightness",
    "surprise",
]
