"""SIGReg as a layer: a quadrature and a step counter around `sigreg_loss`."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from sigreg import _arguments as require
from sigreg._distributed import Group, group_name, whereabouts
from sigreg._kernels.ops import BACKENDS
from sigreg.directions import Sketch
from sigreg.functional import scale_term, sigreg_loss
from sigreg.quadrature import Quadrature, trapezoid_rule

__all__ = ["SIGReg"]


class SIGReg(Sketch):
    """Sketched isotropic Gaussian regularizer: about 1.05 for a Gaussian batch, more for others.

        L(x) = mean_m  N Σ_k weight_k |φ̂_m(t_k) − e^{−t_k²/2}|²,   m = 1..M random directions

    Every call in training mode draws fresh directions and advances the buffer `step`, which the
    state dict holds; evaluation mode keeps `step`. (seed, step) fix the directions on every rank.

    Blind spots: a shift of 2π/Δt, 33.5 by default, for knots Δt apart. Samples that collapsed to
    one point have no gradient, and near a point it fades; `scale` adds a term against that.

    Args:
        knots: K, frequencies of the quadrature. 17 as released; the fused cost is linear in it.
        num_proj: M, directions. 1024 as published for D = 192 to 2048.
        t_max: largest frequency, 3 in the released code.
        sampler: "gaussian", independent directions, or "orthogonal", blocks of D orthonormal ones.
        scale_by_n: multiply by N, as all released code does; LeWM's printed formula does not.
        seed: of the sequence of directions.
        group: ranks that share the samples, as in `sigreg_loss`. "auto" is the default process
            group if one is initialised when forward is called. In evaluation mode "auto" means this
            process alone, so that one rank can validate while others wait.
        backend: "auto", "reference", "cpu", "cpp" or "triton".
        chunk: directions projected at a time, to bound memory; None: the kernel chooses.
        scale: weight of `scale_term`, off by default; lets collapsed samples escape.
        quadrature: another rule or target, such as `trapezoid_rule(target=student_t_cf(5))`.
    Shape: x [..., N, D] with the samples on axis −2 -> [].
    Raises: ValueError on arguments outside these ranges.
    Source: LeJEPA, arXiv:2511.08544; LeWorldModel, arXiv:2603.19312.
    """

    def __init__(
        self,
        knots: int = 17,
        num_proj: int = 1024,
        t_max: float = 3.0,
        *,
        sampler: Literal["gaussian", "orthogonal"] = "gaussian",
        scale_by_n: bool = True,
        seed: int = 0,
        group: Group = "auto",
        backend: str = "auto",
        chunk: int | None = None,
        scale: float = 0.0,
        quadrature: Quadrature | None = None,
    ) -> None:
        super().__init__(num_proj, seed=seed, sampler=sampler)
        require.number("scale", scale)
        require.kind("scale_by_n", scale_by_n, bool)
        if chunk is not None:
            require.count("chunk", chunk)
        if quadrature is None:
            quadrature = trapezoid_rule(knots, t_max)
        elif (knots, t_max) != (17, 3.0):
            raise ValueError(
                f"quadrature must come without knots and t_max, got knots={knots}, t_max={t_max}"
            )
        require.kind("quadrature", quadrature, Quadrature)
        group_name(group)
        require.choice("backend", backend, BACKENDS)
        self.quadrature = quadrature
        self.scale_by_n, self.scale = scale_by_n, scale
        self.group, self.backend, self.chunk = group, backend, chunk
        self._warned = False
        self._place_rule()

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
        directions: Tensor | None = None,
    ) -> Tensor:
        """The loss []; arguments as in `sigreg_loss`. With your own directions `step` stays."""
        group = None if self.group == "auto" and not self.training else self.group
        require.samples(x, "x", at_least=0 if group_name(group) else 1)
        self._warn_of_layout(x, group)
        loss = sigreg_loss(
            x,
            self.draw(x) if directions is None else directions,
            self.quadrature if x.dtype == torch.float64 else self._rule,
            mask=mask,
            sample_weight=sample_weight,
            scale_by_n=self.scale_by_n,
            group=group,
            backend=self.backend,
            chunk=self.chunk,
        )
        if self.scale:
            term = scale_term(x, mask=mask, sample_weight=sample_weight, group=group)
            loss = loss + self.scale * term
        return loss

    def extra_repr(self) -> str:
        """The settings to print."""
        t = self.quadrature.t
        return f"knots={len(t)}, num_proj={self.num_proj}, t_max={float(t[-1])}, seed={self.seed}"

    def _place_rule(self) -> None:
        """Keep the rule in float32 on the device of `step`, whatever .half() or .to_empty() do."""
        self._rule = self.quadrature.to(self.step.new_empty(0, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SIGReg":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place_rule()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Checkpoints of the released code hold the quadrature and no step.
        for name in ("t", "phi", "weights"):
            state_dict.pop(prefix + name, None)
        state_dict.setdefault(prefix + "step", self.step)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _warn_of_layout(self, x: Tensor, group: Group) -> None:
        if self._warned or torch.compiler.is_compiling() or x.ndim < 3:
            return
        ranks, _ = whereabouts(group_name(group))
        n, lead = x.shape[-2] * ranks, max(x.shape[:-2])
        if n < 16 and lead >= 4 * n:
            self._warned = True
            warnings.warn(
                f"SIGReg got {list(x.shape)}: {n} samples on axis -2 beside a leading axis of "
                f"{lead}. Samples belong on axis -2; if x is [batch, time, dim], pass "
                "x.transpose(0, 1).",
                stacklevel=3,
            )
