"""Which actions are cheapest? One planning loop and many small methods."""

from planners.cem import CEM
from planners.contract import Bounds, Cost, Method, Plan, Progress
from planners.mpc import MPC, split_blocks
from planners.optimize import optimize

__all__ = ["CEM", "MPC", "Bounds", "Cost", "Method", "Plan", "Progress", "optimize", "split_blocks"]
