"""Is this batch an isotropic Gaussian? The SIGReg regularizer, its kernels and read-outs."""

from sigreg._distributed import DistributedCheck, check_distributed
from sigreg.directions import random_directions
from sigreg.functional import sigreg_loss
from sigreg.module import SIGReg
from sigreg.quadrature import Quadrature, trapezoid

__all__ = [
    "DistributedCheck",
    "Quadrature",
    "SIGReg",
    "check_distributed",
    "random_directions",
    "sigreg_loss",
    "trapezoid",
]
