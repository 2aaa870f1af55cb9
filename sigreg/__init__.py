"""Is this batch an isotropic Gaussian? The SIGReg regularizer, its kernels and read-outs."""

from sigreg.check import DistributedCheck, check_distributed
from sigreg.diagnostics import Report, collapse_value, effective_rank, noise_floor, report
from sigreg.directions import Directions, random_directions
from sigreg.edf_tests import anderson_darling, cramer_von_mises, watson
from sigreg.functional import sigreg_loss
from sigreg.isometry import NearIsometry
from sigreg.lejepa import LeJEPALoss, LeJEPALosses, additive_weight, invariance_loss
from sigreg.module import SIGReg
from sigreg.moment_tests import extended_jarque_bera, hermite_moments, jarque_bera
from sigreg.null_law import ChiSquareSum, null_law, tail_probability
from sigreg.quadrature import Quadrature, student_t, trapezoid
from sigreg.reference import epps_pulley_exact
from sigreg.scale import scale_term
from sigreg.sliced import SlicedTest, sliced_loss
from sigreg.subspace import SubspaceRegularizer
from sigreg.vicreg import VCReg, covariance_term, variance_term, vicreg_loss
from sigreg.weak import WeakSIGReg, weak_sigreg_loss

__all__ = [
    "ChiSquareSum",
    "Directions",
    "DistributedCheck",
    "LeJEPALoss",
    "LeJEPALosses",
    "NearIsometry",
    "Quadrature",
    "Report",
    "SIGReg",
    "SlicedTest",
    "SubspaceRegularizer",
    "VCReg",
    "WeakSIGReg",
    "additive_weight",
    "anderson_darling",
    "check_distributed",
    "collapse_value",
    "covariance_term",
    "cramer_von_mises",
    "effective_rank",
    "epps_pulley_exact",
    "extended_jarque_bera",
    "hermite_moments",
    "invariance_loss",
    "jarque_bera",
    "noise_floor",
    "null_law",
    "random_directions",
    "report",
    "scale_term",
    "sigreg_loss",
    "sliced_loss",
    "student_t",
    "tail_probability",
    "trapezoid",
    "variance_term",
    "vicreg_loss",
    "watson",
    "weak_sigreg_loss",
]
