"""The Triton kernels. No other file imports triton."""

from sigreg._kernels.ecf_triton.launch import gaussian_directions, loss

__all__ = ["gaussian_directions", "loss"]
