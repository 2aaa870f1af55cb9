"""Runs for the tests of `worldmodel view`: untrained, small, saved as `train` would."""

from __future__ import annotations

from pathlib import Path

import torch

from worldmodel import CausalPredictor, WorldModel, presets
from worldmodel.apps.runs import save_run
from worldmodel.data import ActionScale


def save_untrained(folder: Path, world: str = "two-room", *, seed: int = 0) -> Path:
    """A small model with random weights and lively statistics: it plans badly and runs well."""
    torch.manual_seed(seed)
    like = presets.small(10, image_size=32, dim=16)
    predictor = CausalPredictor(16, depth=1, heads=2, history=2, dim_head=8, mlp_dim=32)
    model = WorldModel(like.encoder, like.action_encoder, predictor)
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_()
    for name, weight in model.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(weight, std=0.2)
    save_run(
        model.eval(), folder, scale=ActionScale(torch.tensor([0.0, 0.1]), torch.tensor([0.7, 0.6])),
        frameskip=5, world=world, trained_on=[], held_out=[], settings={"weight": 0.05},
    )  # fmt: skip
    return folder
