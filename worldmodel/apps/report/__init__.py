"""What people look at: pages, charts, films, and what a terminal says at the end."""

from worldmodel.apps.report.charts import save_chart
from worldmodel.apps.report.contents import index_page, write_index
from worldmodel.apps.report.figures import convergence, latent_map, training_curves, tune_chart
from worldmodel.apps.report.films import Film, film_suffix, write_film
from worldmodel.apps.report.pages import (
    compare_lines,
    compare_page,
    demo_lines,
    demo_page,
    evaluate_page,
    result_lines,
    study_lines,
    study_page,
    tune_page,
)

__all__ = [
    "Film",
    "compare_lines",
    "compare_page",
    "convergence",
    "demo_lines",
    "demo_page",
    "evaluate_page",
    "film_suffix",
    "index_page",
    "latent_map",
    "result_lines",
    "save_chart",
    "study_lines",
    "study_page",
    "training_curves",
    "tune_chart",
    "tune_page",
    "write_film",
    "write_index",
]
