"""The cases of bench_control.py: models, distances and planners, in the order of the runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from control_models import FROZEN, SIDE, Recipe

from worldmodel.apps.parsing import preset
from worldmodel.apps.settings import TrialSettings

__all__ = ["CASES", "FULL", "REPEATED", "SEEDS", "Case", "chosen"]

FULL = "LeWM, 224 px"
PUBLISHED = TrialSettings(**preset("evaluate", "preset", "published"))


def sigreg(weight: float) -> Recipe:
    """The demo's model at some λ."""
    return Recipe(f"weight-{weight:g}", weight=weight)


USUAL = sigreg(0.05)
PLDM, GCBC = Recipe("pldm", "pldm"), Recipe("gcbc", "gcbc")
SUBSPACE = Recipe("subspace-8", subspaces=8)
NARROW, WIDE = Recipe("dim-32", dim=32), Recipe("dim-128", dim=128)
LONGER = Recipe("longer-2", longer=2)
ICEM = TrialSettings(planner="icem")


@dataclass(frozen=True)
class Case:
    """One evaluation: a model, a manifest and a planner."""

    name: str
    recipe: Recipe = USUAL
    offset: int = 25
    planner: TrialSettings = field(default_factory=TrialSettings)
    pairs: int = 200  # the first of the manifest; fewer where a case takes long

    def again(self, seed: int) -> Case:
        """The same case with a model of other walks, weights and batches."""
        recipe = replace(self.recipe, folder=f"{self.recipe.folder}-seed-{seed}", seed=seed)
        return replace(self, name=f"{self.name}, seed {seed}", recipe=recipe)


SEEDS = (1, 2)
# Trained once more with each of these seeds.
REPEATED = (
    Case("cem"),
    Case("icem", planner=ICEM),
    Case("cem, cost at the last step", planner=TrialSettings(cost="last")),
    Case("PLDM", PLDM),
    Case("GCBC", GCBC),
    Case("dim 128, icem", WIDE, planner=ICEM),
    Case("subspaces, icem", SUBSPACE, planner=ICEM),
)
# In the order of the runs: the most important cases come first.
CASES = (
    Case("cem"),
    Case("cem, 50 steps", offset=50),
    Case("icem", planner=ICEM),
    Case("mppi", planner=TrialSettings(planner="mppi")),
    Case("gradient", planner=TrialSettings(planner="gradient"), pairs=100),
    Case(FROZEN, Recipe("frozen", "frozen")),
    Case("λ = 0.01", sigreg(0.01)),
    Case("λ = 0.2", sigreg(0.2)),
    Case("predictive-sampling", planner=TrialSettings(planner="predictive-sampling")),
    Case("cem, cost at the last step", planner=TrialSettings(cost="last")),
    Case("cem, every raw action free", planner=TrialSettings(free=True)),
    Case("cem, 100 steps", offset=100, pairs=100),
    Case("PLDM", PLDM),
    Case("GCBC", GCBC),
    Case("λ = 0", sigreg(0.0)),
    Case("dim 128", WIDE),
    Case("dim 128, icem", WIDE, planner=ICEM),
    Case("subspaces", SUBSPACE),
    Case("subspaces, icem", SUBSPACE, planner=ICEM),
    Case("λ = 0.5", sigreg(0.5)),
    Case("dim 32", NARROW),
    Case("dim 32, icem", NARROW, planner=ICEM),
    Case("PLDM, icem", PLDM, planner=ICEM),
    Case("icem at λ = 0.2", sigreg(0.2), planner=ICEM),
    Case("trained longer", LONGER),
    Case("trained longer, icem", LONGER, planner=ICEM),
    *(case.again(seed) for seed in SEEDS for case in REPEATED),
    Case("LeWM, 56 px", Recipe("lewm-56", image_size=56, published=True)),
    Case(FULL, Recipe("lewm-224", image_size=SIDE, published=True), planner=PUBLISHED),
)


def chosen(word: str) -> list[Case]:
    """The case of that name, or all whose name holds the word."""
    return [c for c in CASES if c.name == word] or [c for c in CASES if word in c.name]
