"""`sigreg::loss` on one GPU, as an operator that compilers see through.

An operator of its own: what other ranks add comes in a message, which no compiler can see through,
and this one can be made only where triton is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from sigreg._kernels.ecf_triton.launch import loss
from sigreg._kernels.operator import flops, function_of, pull, save_gradients

__all__ = ["loss_triton_op"]

loss_triton_op: Any = torch.library.triton_op(
    "sigreg::loss_triton", function_of({"triton": loss}), mutates_args=()
)
loss_triton_op.register_autograd(pull, setup_context=save_gradients)
register_flop_formula([torch.ops.sigreg.loss, torch.ops.sigreg.loss_triton])(flops)
