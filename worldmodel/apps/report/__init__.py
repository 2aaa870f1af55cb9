"""Reports: pages, charts, and the text that a command prints at its end."""

from worldmodel.apps.report.charts import (
    convergence,
    latent_map,
    save_chart,
    training_curves,
    tune_chart,
)
from worldmodel.apps.report.pages import index_page, render, study_page, write_index

__all__ = ["convergence", "index_page", "latent_map", "render", "save_chart", "study_page",
           "training_curves", "tune_chart", "write_index"]  # fmt: skip
