"""Is this batch an isotropic Gaussian? The SIGReg regularizer, its kernels and read-outs."""

from sigreg.check import DistributedCheck, check_distributed
from sigreg.covariance import VCReg, WeakSIGReg
from sigreg.diagnostics import (
    EmbeddingReport,
    collapse_value,
    effective_rank,
    embedding_report,
    noise_floor,
)
from sigreg.directions import Directions, random_directions
from sigreg.functional import scale_term, sigreg_loss
from sigreg.lejepa import LeJEPALoss, LeJEPALosses, additive_weight, invariance_loss
from sigreg.mapped import NearIsometry, SubspaceRegularizer
from sigreg.module import SIGReg
from sigreg.null_law import ChiSquareSum, null_law, tail_probability
from sigreg.quadrature import Quadrature, student_t_cf, trapezoid_rule
from sigreg.reference import epps_pulley_exact
from sigreg.sliced import (
    SlicedTest,
    anderson_darling,
    cramer_von_mises,
    extended_jarque_bera,
    hermite_moments,
    jarque_bera,
    watson,
)

__all__ = [
    "ChiSquareSum", "Directions", "DistributedCheck", "EmbeddingReport", "LeJEPALoss",
    "LeJEPALosses", "NearIsometry", "Quadrature", "SIGReg", "SlicedTest", "SubspaceRegularizer",
    "VCReg", "WeakSIGReg", "additive_weight", "anderson_darling", "check_distributed",
    "collapse_value", "cramer_von_mises", "effective_rank", "embedding_report", "epps_pulley_exact",
    "extended_jarque_bera", "hermite_moments", "invariance_loss", "jarque_bera", "noise_floor",
    "null_law", "random_directions", "scale_term", "sigreg_loss", "student_t_cf",
    "tail_probability", "trapezoid_rule", "watson",
]  # fmt: skip
