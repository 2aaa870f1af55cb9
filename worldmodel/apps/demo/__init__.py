"""`worldmodel demo`: the whole pipeline in the built-in world."""

from worldmodel.apps.demo.run import run_demo

__all__ = ["run_demo"]
