"""`worldmodel tune-lambda`: the weight of SIGReg by bisection, in a handful of short runs."""

from worldmodel.apps.tune.search import run_tune

__all__ = ["run_tune"]
