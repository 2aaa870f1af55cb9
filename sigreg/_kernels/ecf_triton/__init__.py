"""The kernels in Triton. Nothing else imports triton, and this only where it is used."""

from sigreg._kernels.ecf_triton.launch import gaussian_directions, loss

__all__ = ["gaussian_directions", "loss"]
