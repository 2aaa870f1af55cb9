"""The kernels in Triton. Nothing else imports triton, and this only where it is used."""

from sigreg._kernels.ecf_triton.launch import loss
from sigreg._kernels.ecf_triton.rows import gaussian_directions

__all__ = ["gaussian_directions", "loss"]
