"""Planners search for the actions of least cost: one planning loop and many small methods."""

from planners.choices import CategoricalCEM, SimplexGradient
from planners.contract import Bounds, Cost, Method, Plan, Progress, Scored, from_dynamics
from planners.gradient import GRASP, GradientDescent
from planners.mpc import MPC, MPCRecord, split_blocks
from planners.noise import Colored, Integrated, Kernel
from planners.optimize import optimize, planning_step
from planners.platform import StableWorldModelSolver
from planners.proposals import Proposals
from planners.sampling import CEM, ICEM, MPPI, PredictiveSampling
from planners.wrappers import AugmentedLagrangian, BestSoFar, Refine

__all__ = [
    "CEM", "GRASP", "ICEM", "MPC", "MPPI", "AugmentedLagrangian", "BestSoFar", "Bounds",
    "CategoricalCEM", "Colored", "Cost", "GradientDescent", "Integrated", "Kernel", "MPCRecord",
    "Method", "Plan", "PredictiveSampling", "Progress", "Proposals", "Refine", "Scored",
    "SimplexGradient", "StableWorldModelSolver", "from_dynamics", "optimize", "planning_step",
    "split_blocks",
]  # fmt: skip
