"""`worldmodel study`: what a run has learned, measured and put on one page."""

from worldmodel.apps.study.command import run_study

__all__ = ["run_study"]
