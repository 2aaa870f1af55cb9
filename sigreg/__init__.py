"""Is this batch an isotropic Gaussian? The SIGReg regularizer, its kernels and read-outs."""

from sigreg.diagnostics import Report, collapse_value, effective_rank, noise_floor, report
from sigreg.directions import random_directions
from sigreg.functional import sigreg_loss
from sigreg.module import SIGReg
from sigreg.quadrature import Quadrature, trapezoid

__all__ = [
    "Quadrature",
    "Report",
    "SIGReg",
    "collapse_value",
    "effective_rank",
    "noise_floor",
    "random_directions",
    "report",
    "sigreg_loss",
    "trapezoid",
]
