"""Which implementation sums the characteristic function."""

from sigreg._kernels.choice import check_backend, choose_backend, ecf_sums
from sigreg._kernels.ops import loss_op

__all__ = ["check_backend", "choose_backend", "ecf_sums", "loss_op"]
