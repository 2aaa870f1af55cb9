"""Which actions are cheapest? One planning loop and many small methods."""

from planners.best_so_far import BestSoFar
from planners.categorical import CategoricalCEM
from planners.cem import CEM
from planners.contract import Bounds, Cost, Method, Plan, Progress, Scored, split_blocks
from planners.correlation import Colored, Integrated, Kernel
from planners.dynamics import from_dynamics
from planners.gradient import GradientDescent
from planners.grasp import GRASP
from planners.icem import ICEM
from planners.lagrangian import AugmentedLagrangian
from planners.mpc import MPC, MPCRecord
from planners.mppi import MPPI
from planners.optimize import optimize, planning_step
from planners.platform import PlatformSolver
from planners.predictive_sampling import PredictiveSampling
from planners.proposals import Proposals
from planners.refine import Refine
from planners.simplex import SimplexGradient

__all__ = [
    "CEM",
    "GRASP",
    "ICEM",
    "MPC",
    "MPPI",
    "AugmentedLagrangian",
    "BestSoFar",
    "Bounds",
    "CategoricalCEM",
    "Colored",
    "Cost",
    "GradientDescent",
    "Integrated",
    "Kernel",
    "MPCRecord",
    "Method",
    "Plan",
    "PlatformSolver",
    "PredictiveSampling",
    "Progress",
    "Proposals",
    "Refine",
    "Scored",
    "SimplexGradient",
    "from_dynamics",
    "optimize",
    "planning_step",
    "split_blocks",
]
