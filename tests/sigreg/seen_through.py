"""Trace a training step on the Triton kernels, as a compiler does, and list what it saw.

A program for `test_ahead`: Triton compiles in a process without its interpreter only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd

sys.path.insert(0, sys.argv[1])
import ahead

from sigreg import SIGReg


def main() -> None:
    """Kernels and operators of ours in the forward and backward graphs, as JSON."""
    operators: list[str] = []

    def read(graph: torch.fx.GraphModule, _example: Any) -> Any:
        targets = [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
        operators.extend(t for t in targets if t.startswith("sigreg.loss"))
        return make_boxed_func(graph.forward)

    encoder, layer = nn.Linear(32, 32), SIGReg(num_proj=64, backend="triton")

    def step(x: Tensor) -> Tensor:
        loss: Tensor = layer(encoder(x))
        return loss

    with ahead.instead_of_launching(90) as launched:
        traced = torch.compile(
            step, fullgraph=True, backend=aot_autograd(fw_compiler=read, bw_compiler=read)
        )
        traced(torch.randn(2, 20, 32)).backward()
    kernels = [name.removesuffix("_kernel") for name, _ in launched]
    json.dump({"kernels": kernels, "operators": operators}, sys.stdout)


main()
