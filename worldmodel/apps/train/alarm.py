"""The collapse alarm: when embeddings stop telling frames apart, say so and say why."""

from __future__ import annotations

from sigreg import Report
from worldmodel.apps.settings import Recipe

__all__ = ["Alarm"]

POINT = 0.1  # standard deviation of a coordinate; SIGReg's target is 1
RANK = 2.0  # effective rank; a world of two coordinates fills a few directions and is no collapse
EXCESS = 0.5  # SIGReg's excess, as a fraction of what a single point would score


class Alarm:
    """Watches the read-outs of a run and speaks once per collapse.

    A collapse is one of three: all embeddings near one point, all near one line, or a
    statistic half as large as that of a single point. It counts when it is seen in three read-outs
    in a row behind the warm-up, the first tenth of the run and 50 steps: fresh weights may show any
    of them for a while.

    Args:
        recipe: of the run; its weight and rate are named as suspects.

    Attributes:
        count: collapses told so far.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.seen = self.count = 0
        self.raised = False

    def look(self, step: int, found: Report) -> str | None:
        """What to tell the user about a read-out, None if there is nothing new."""
        signs = self.signs(found)
        if step <= max(50, max(self.recipe.warmup, 0.1) * (self.recipe.steps or 0)):
            return None
        self.seen = self.seen + 1 if signs else 0
        if self.raised and not signs:
            self.raised = False
            return f"step {step}: the embeddings have spread again, {_figures(found)}"
        if self.raised or self.seen < 3:
            return None
        self.raised = True
        self.count += 1
        return (
            f"COLLAPSE at step {step}: {'; '.join(signs)} ({_figures(found)}). "
            "Embeddings that are all alike are easy to predict: the small prediction loss is no "
            f"success. {self.remedy()}"
        )

    def signs(self, found: Report) -> list[str]:
        """Which kinds of collapse a read-out shows."""
        signs = []
        if found.scale < POINT:
            signs.append("all embeddings lie near one point")
        elif found.effective_rank < RANK:
            signs.append(f"they fill {found.effective_rank:.1f} of {found.dim} directions")
        if found.collapse > EXCESS:
            signs.append(f"SIGReg's excess is {found.collapse:.0%} of a single point's")
        return signs

    def remedy(self) -> str:
        """What to change, from what the run was told."""
        weight, rate = self.recipe.weight, self.recipe.learning_rate
        if weight == 0:
            return "weight is 0: nothing keeps embeddings apart; set weight=0.05 or so"
        return (
            f"Raise weight (now {weight:g}; doubling it is a step), or lower learning_rate "
            f"(now {rate:g}); see also whether the frames differ: worldmodel data inspect"
        )


def _figures(found: Report) -> str:
    return (
        f"standard deviation {found.scale:.2g} instead of 1, effective rank "
        f"{found.effective_rank:.1f} where Gaussian samples show {found.gaussian_rank:.0f}, SIGReg "
        f"{found.statistic:.3g} over a floor of {found.floor:.2f}"
    )
