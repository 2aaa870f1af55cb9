"""The card: what a launch has to know of it, asked once, and on which one a launch lands."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


class Card(NamedTuple):
    """What launches depend on."""

    processors: int
    shared_memory: int  #: bytes that one program may have
    bfloat16: bool  #: whether its tensor cores are known to multiply them: NVIDIA's from Ampere on


@functools.cache
def card(device: torch.device) -> Card:
    """The card of a device; the interpreter's for the CPU."""
    if device.type != "cuda":
        return Card(1, 0, True)
    driver = triton.runtime.driver.active
    properties = driver.utils.get_device_properties(device.index)
    target = driver.get_current_target()
    bfloat16 = target.backend == "cuda" and target.arch >= 80
    return Card(properties["multiprocessor_count"], properties["max_shared_mem"], bfloat16)


def on_device(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the tensor's card, whichever is current; without one only the interpreter runs."""
    if like.is_cuda:
        return torch.cuda.device(like.device)
    if not INTERPRET:
        raise ValueError(
            f"backend='triton' needs a tensor on a GPU, got one on {like.device}; "
            "TRITON_INTERPRET=1 in the environment runs the kernels on the CPU, slowly, for tests"
        )
    return contextlib.nullcontext()


def launcher(kernel: Any, like: Tensor) -> Any:
    """The kernel, or while a compiler traces, what records its launch."""
    return kernel if type(like) is Tensor else torch.library.wrap_triton(kernel)


def options(like: Tensor, warps: int, stages: int = 3) -> dict[str, Any]:
    """Launch options. A product and a sum are one instruction only where a kernel says so."""
    # Triton's default changes with its versions; compilers take no such option.
    fusion = {"enable_fp_fusion": False} if type(like) is Tensor else {}
    return {"num_warps": warps, "num_stages": stages, **fusion}
