"""The fused implementations: a table of kernels that all meet one contract."""

from sigreg._kernels.ops import BACKENDS, choose_backend, loss_op, loss_operator

__all__ = ["BACKENDS", "choose_backend", "loss_op", "loss_operator"]
