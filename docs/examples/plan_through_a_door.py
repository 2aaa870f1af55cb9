"""Plan through a door.

A point moves in a plane that has a wall with one gap. The cost is a function of a few lines.
A planner needs no model class, only a function from candidate actions to costs.
"""

import torch
from torch import Tensor

from planners import CEM, MPC, Bounds

START, GOAL, DOOR = torch.tensor([-1.0, -0.6]), torch.tensor([1.0, 0.6]), 0.2


def cost_from(position: Tensor):
    """Mean distance of a plan's path to the goal, plus a penalty where it hits the wall."""

    def cost(actions: Tensor) -> Tensor:  # [B, S, H, 2] -> [B, S]
        path = position + actions.cumsum(-2)
        before = torch.cat([position.expand_as(path[..., :1, :]), path[..., :-1, :]], -2)
        crossed = before[..., 0].sign() != path[..., 0].sign()
        outside_door = (path[..., 1].abs() - DOOR).clamp(min=0) + 1
        hits = (crossed * outside_door * (path[..., 1].abs() > DOOR)).sum(-1)
        return (path - GOAL).norm(dim=-1).mean(-1) + 10 * hits

    return cost


position = START
planner = MPC(
    CEM(num_samples=300, num_elites=30, init_std=0.2),
    horizon=12,
    action_dim=2,
    iterations=10,
    execute=2,
    bounds=Bounds(-0.25, 0.25),
)
print("step     x      y   distance to the goal")
for step in range(0, 14, 2):
    print(f"{step:4d} {position[0]:6.2f} {position[1]:6.2f} {(position - GOAL).norm():8.2f}")
    position = position + planner.act(cost_from(position))[0].sum(0)
print(f"  14 {position[0]:6.2f} {position[1]:6.2f} {(position - GOAL).norm():8.2f}")
