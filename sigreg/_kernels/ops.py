"""The kernels as torch operators, the same for eager, traced and compiled code.

`sigreg::loss` computes the gradient in the forward pass; backward only rescales it.
"""

import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg._kernels import ecf_cpp, ecf_cpu
from sigreg._kernels.contract import Problem, operator_of
from sigreg.directions import directions_op, draw, gaussian_rows
from sigreg.quadrature import Quadrature

# Looked for, not imported: `import sigreg` must be fast and work without triton.
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def _triton() -> ModuleType:
    from sigreg._kernels.ecf_triton import launch

    return launch


_KERNELS = {
    "cpu": ecf_cpu.loss,
    "cpp": ecf_cpp.loss,
    "triton": lambda problem: _triton().loss(problem),
}
BACKENDS = ("auto", "reference", *_KERNELS)


def choose_backend(backend: str, device: torch.device, rule: Quadrature) -> str:
    """The implementation to run: "reference" or a kernel; "auto" is the fastest of the device.

    Raises: ValueError if the backend is unknown or cannot run; no other one replaces it.
    """
    require.choice("backend", backend, BACKENDS)
    if backend == "auto":
        if rule.spacing is None:
            return "reference"
        if device.type == "cuda" and _HAS_TRITON:
            return "triton"
        return "cpu" if device.type == "cpu" else "reference"
    if backend != "reference" and rule.spacing is None:
        raise ValueError(
            f"backend={backend!r} needs a quadrature with equally spaced knots from 0 (its "
            "`spacing` is None); use 'auto' or 'reference'"
        )
    if backend == "triton" and not _HAS_TRITON:
        raise ValueError("backend='triton' needs the triton package, which is not installed")
    return backend


@directions_op.register_kernel("cuda")
def draw_on_gpu(
    step: Tensor, num_proj: int, dim: int, seed: int, orthogonal: bool
) -> tuple[Tensor, Tensor]:
    """`sigreg::directions` on a GPU, by one kernel if triton is there, with the same bits."""
    if not _HAS_TRITON:
        return draw(gaussian_rows(num_proj, dim, seed, step), orthogonal)
    rows, scale = _triton().gaussian_directions(num_proj, dim, seed, step)
    return draw(rows, orthogonal) if orthogonal else (rows, scale)


loss_op = operator_of(torch.library.custom_op, "sigreg::loss", _KERNELS)


@loss_op.register_fake  # type: ignore[untyped-decorator]
def _(z: Tensor, rows: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight, want_z, want_rows = rest[2], *rest[-2:]
    return (
        weight.new_empty(()),
        weight.new_empty(z.shape if want_z else (0,)),
        weight.new_empty(rows.shape if want_rows else (0,)),
    )


def fused_loss(problem: Problem, backend: str) -> Tensor:
    """`sigreg::loss`; on one GPU its twin `loss_triton`, whose kernels a compiler can see."""
    operator = loss_op
    if backend == "triton" and not problem.group:
        _triton()  # brings the operator
        operator = torch.ops.sigreg.loss_triton
    z, directions, shares, rule, *rest = problem
    parts = z, *directions, shares, rule.weight, rule.target, problem.spacing, backend, *rest
    return operator(*parts)[0]
