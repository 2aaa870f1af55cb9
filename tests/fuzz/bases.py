"""One legitimate call of every public callable: what the fuzz of library calls spoils."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import planners
import sigreg
import worldmodel
from sigreg.quadrature import gaussian
from worldmodel import (
    data,
    goals,
    heads,
    learning,
    policies,
    presets,
    study,
    subgoals,
    transitions,
    values,
    worlds,
)

MODULES = ("sigreg", "planners", "worldmodel", "worldmodel.data", "worldmodel.worlds",
           "worldmodel.study", "worldmodel.goals", "worldmodel.heads", "worldmodel.learning",
           "worldmodel.policies", "worldmodel.presets", "worldmodel.subgoals",
           "worldmodel.values", "worldmodel.transitions")  # fmt: skip
Call = tuple[Callable[..., Any], dict[str, Any]]

DINO = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14,
        "image_size": 28, "mlp_ratio": 2}  # fmt: skip
D, A, T, B, H = 8, 4, 4, 3, 3  # dims, action dims, frames, batch, horizon


def public() -> Iterator[tuple[str, Any]]:
    """Every public callable that takes arguments and is no mere record of results."""
    seen: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        for word in module.__all__:
            value = getattr(module, word)
            if not callable(value) or typing.get_origin(value) is not None or id(value) in seen:
                continue
            seen.add(id(value))
            if getattr(value, "_is_protocol", False) or is_record(value):
                continue
            if inspect.signature(value).parameters:
                yield f"{value.__module__.split('.')[0]}.{word}", value


def is_record(value: Any) -> bool:
    """Whether a class only holds what the library hands out."""
    tuples = inspect.isclass(value) and issubclass(value, tuple)
    return tuples or value in (sigreg.EmbeddingReport, data.Frames)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Fixed Gaussian numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def frames(*shape: int) -> torch.Tensor:
    """Fixed uint8 pictures."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (*shape, 3, 16, 16), dtype=torch.uint8, generator=generator)


def model() -> worldmodel.WorldModel:
    """A small world model of 16 × 16 pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return worldmodel.WorldModel(
            worldmodel.ConvEncoder(image_size=16, patch_size=4, width=8, dim=D, projector_dim=16),
            worldmodel.ActionEncoder(A, D),
            worldmodel.CausalPredictor(
                D, depth=1, heads=2, history=3, dim_head=4, mlp_dim=16, dropout=0.0,
                projector_dim=16,
            ),
        ).eval()  # fmt: skip


def predictor(kind: type[nn.Module]) -> dict[str, Any]:
    """Small sizes for a predictor."""
    sizes = {"dim": D, "depth": 1, "heads": 2, "history": 3, "dim_head": 4, "mlp_dim": 16,
             "dropout": 0.0, "projector_dim": 16, "rank": 4, "hidden_dim": 16, "prefix_depth": 1,
             "token_dim": D, "tokens": 4, "action_width": 2, "look_back": 3}  # fmt: skip
    return {name: sizes[name] for name in inspect.signature(kind).parameters}


def cloner() -> worldmodel.GCBC:
    """A small policy."""
    parts = model()
    trunk = worldmodel.CausalPredictor(**predictor(worldmodel.CausalPredictor))
    return worldmodel.GCBC(parts.encoder, trunk, A).eval()


def batch() -> worldmodel.Batch:
    """Four frames of three sequences."""
    return worldmodel.Batch(frames(B, T), randn(B, T, A))


def episodes() -> data.Episodes:
    """Three episodes."""
    return data.Episodes(frames(36), randn(36, 2), torch.tensor([12, 12, 12]), states=randn(36, 2))


def near(actions: torch.Tensor) -> torch.Tensor:
    """A cost [B, S] of plans."""
    return (actions - 0.3).square().sum((-1, -2))


def cem() -> planners.CEM:
    """A quick planner."""
    return planners.CEM(num_samples=16, num_elites=4)


def recipe(**more: Any) -> transitions.Recipe:
    """Small learners."""
    return transitions.Recipe(hidden=(16,), **more)


def head() -> heads.Head:
    """A fixed head of two numbers."""
    return heads.Head(D, 2)


def law() -> sigreg.ChiSquareSum:
    """A fixed law."""
    return sigreg.null_law(sigreg.trapezoid_rule())


def graph() -> subgoals.Graph:
    """Ways through a few embeddings."""
    return subgoals.Graph.of(randn(40, 4, D), lambda a, b: (a - b).norm(dim=-1), num=20)


def graph_arguments() -> dict[str, Any]:
    """What a graph consists of."""
    made = graph()
    return {"landmarks": made.landmarks, "distance": made.distance, "ways": made.ways,
            "edge": made.edge}  # fmt: skip


def rng() -> np.random.Generator:
    """Fixed random numbers of NumPy."""
    return np.random.default_rng(0)


def states(num: int) -> np.ndarray[Any, Any]:
    """Starts in Two-Room."""
    return worlds.TwoRoom().sample_states(rng(), num)


def distance(z: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Euclid's."""
    return (z - goal).norm(dim=-1)


def make_bases(folder: Path) -> dict[str, Callable[[], Call]]:
    """By name, a function that makes the callable and its arguments anew; files lie in `folder`."""
    if not (folder / "run").exists():
        worldmodel.save(model(), folder / "run")
        worldmodel.save(cloner(), folder / "cloned")
        heads.save_head(head(), folder / "head.safetensors")
        learner = policies.Policy(D, A, recipe())
        learning.save_learner(learner, folder / "learner.safetensors", model=model())
        with data.HDF5Writer(folder / "data.h5") as writer:
            for e in range(2):
                pixels = frames(6).numpy()
                writer.write(pixels, randn(5, 2, seed=e).numpy(), randn(6, 2, seed=e).numpy())
    step = lambda s, a: s + a[..., :2]  # noqa: E731
    z, actions = randn(B, T, D), randn(B, T, A)
    table: dict[str, Callable[[], Call]] = {
        # sigreg
        "LeJEPALoss": lambda: (
            sigreg.LeJEPALoss,
            {
                "regularizer": sigreg.SIGReg(num_proj=4),
                "weight": 0.05,
                "convention": "convex",
                "pool_views": False,
            },
        ),
        "LeJEPALoss.forward": lambda: (
            sigreg.LeJEPALoss(sigreg.SIGReg(num_proj=4)),
            {"global_views": randn(2, B, D), "local_views": randn(3, B, D)},
        ),
        "NearIsometry": lambda: (
            sigreg.NearIsometry,
            {
                "regularizer": sigreg.SIGReg(num_proj=4),
                "dim": D,
                "depth": 1,
                "bend": 0.2,
                "hidden": 8,
            },
        ),
        "NearIsometry.forward": lambda: (
            sigreg.NearIsometry(sigreg.SIGReg(num_proj=4), D),
            {"x": randn(5, D)},
        ),
        "NearIsometry.transport": lambda: (
            sigreg.NearIsometry(sigreg.SIGReg(num_proj=4), D).transport,
            {"x": randn(5, D)},
        ),
        "SIGReg": lambda: (
            sigreg.SIGReg,
            {
                "knots": 17,
                "num_proj": 8,
                "t_max": 3.0,
                "sampler": "gaussian",
                "scale_by_n": True,
                "seed": 0,
                "group": "auto",
                "backend": "auto",
                "chunk": 2,
                "scale": 0.0,
                "quadrature": sigreg.trapezoid_rule(),
            },
        ),
        "SIGReg.forward": lambda: (
            sigreg.SIGReg(num_proj=4),
            {
                "x": randn(5, D),
                "mask": torch.ones(5, dtype=torch.bool),
                "sample_weight": torch.ones(5),
                "directions": sigreg.random_directions(4, D, seed=0, step=0),
            },
        ),
        "SlicedTest": lambda: (
            sigreg.SlicedTest,
            {"statistic": sigreg.watson, "num_proj": 4, "seed": 0},
        ),
        "SlicedTest.forward": lambda: (
            sigreg.SlicedTest(sigreg.watson, 4),
            {"x": randn(9, D), "directions": sigreg.random_directions(4, D, seed=0, step=0)},
        ),
        "SubspaceRegularizer": lambda: (
            sigreg.SubspaceRegularizer,
            {"regularizer": sigreg.SIGReg(num_proj=4), "dim": 4, "num_subspaces": 2, "seed": 0},
        ),
        "SubspaceRegularizer.forward": lambda: (
            sigreg.SubspaceRegularizer(sigreg.SIGReg(num_proj=4), D, 2),
            {"x": randn(9, D)},
        ),
        "VCReg": lambda: (sigreg.VCReg, {"variance": 25.0, "covariance": 1.0}),
        "VCReg.forward": lambda: (sigreg.VCReg(), {"x": randn(9, D)}),
        "WeakSIGReg": lambda: (sigreg.WeakSIGReg, {"num_proj": 4, "seed": 0}),
        "WeakSIGReg.forward": lambda: (
            sigreg.WeakSIGReg(4),
            {"x": randn(9, D), "directions": sigreg.random_directions(4, D, seed=0, step=0)},
        ),
        "additive_weight": lambda: (sigreg.additive_weight, {"weight": 0.05}),
        **{
            name: (lambda name=name: (getattr(sigreg, name), {"x": randn(9, D)}))
            for name in (
                "anderson_darling",
                "cramer_von_mises",
                "extended_jarque_bera",
                "jarque_bera",
                "watson",
                "epps_pulley_exact",
            )
        },
        "check_distributed": lambda: (
            sigreg.check_distributed,
            {"regularizer": sigreg.SIGReg(num_proj=4)},
        ),
        "collapse_value": lambda: (
            sigreg.collapse_value,
            {"num_samples": 9, "quadrature": sigreg.trapezoid_rule()},
        ),
        "effective_rank": lambda: (sigreg.effective_rank, {"covariance": torch.eye(D)}),
        "hermite_moments": lambda: (sigreg.hermite_moments, {"x": randn(9, D), "order": 4}),
        "invariance_loss": lambda: (
            sigreg.invariance_loss,
            {"views": randn(2, B, D), "centre": randn(B, D)},
        ),
        "noise_floor": lambda: (sigreg.noise_floor, {"quadrature": sigreg.trapezoid_rule()}),
        "null_law": lambda: (
            sigreg.null_law,
            {
                "quadrature": sigreg.trapezoid_rule(),
                "directions": sigreg.random_directions(4, D, seed=0, step=0),
            },
        ),
        "random_directions": lambda: (
            sigreg.random_directions,
            {"num_proj": 4, "dim": D, "seed": 0, "step": 0, "device": "cpu", "sampler": "gaussian"},
        ),
        "embedding_report": lambda: (
            sigreg.embedding_report,
            {
                "z": randn(9, D),
                "directions": sigreg.random_directions(4, D, seed=0, step=0),
                "quadrature": sigreg.trapezoid_rule(),
                "num_proj": 4,
                "seed": 0,
                "state_rank": 2.0,
                "group": None,
            },
        ),
        "scale_term": lambda: (
            sigreg.scale_term,
            {
                "z": randn(9, D),
                "mask": torch.ones(9, dtype=torch.bool),
                "sample_weight": torch.ones(9),
                "group": None,
            },
        ),
        "sigreg_loss": lambda: (
            sigreg.sigreg_loss,
            {
                "z": randn(9, D),
                "directions": sigreg.random_directions(4, D, seed=0, step=0),
                "quadrature": sigreg.trapezoid_rule(),
                "mask": torch.ones(9, dtype=torch.bool),
                "sample_weight": torch.ones(9),
                "scale_by_n": True,
                "group": None,
                "backend": "reference",
                "chunk": 2,
            },
        ),
        "student_t_cf": lambda: (sigreg.student_t_cf, {"dof": 3}),
        "tail_probability": lambda: (sigreg.tail_probability, {"law": law(), "x": torch.rand(4)}),
        "trapezoid_rule": lambda: (
            sigreg.trapezoid_rule,
            {"knots": 17, "t_max": 3.0, "target": gaussian},
        ),
        # planners
        "CEM": lambda: (
            planners.CEM,
            {
                "num_samples": 16,
                "num_elites": 4,
                "init_std": 1.0,
                "min_std": 0.0,
                "momentum": 0.0,
                "keep_mean": True,
                "returns": "mean",
                "decay": 1.0,
            },
        ),
        "GRASP": lambda: (
            planners.GRASP,
            {
                "step": step,
                "initial": randn(B, 2),
                "goal": randn(B, 2),
                "num_restarts": 2,
                "lifted_iterations": 1,
                "lifted_steps": 1,
                "goal_weight": 1.0,
                "state_noise": 0.05,
                "action_lr": 0.05,
                "state_lr": 0.05,
                "init_std": 0.5,
            },
        ),
        "ICEM": lambda: (
            planners.ICEM,
            {
                "num_samples": 16,
                "num_elites": 4,
                "beta": 2.0,
                "init_std": 0.5,
                "momentum": 0.1,
                "keep": 0.3,
                "decay": 1.25,
            },
        ),
        "MPC": lambda: (
            planners.MPC,
            {
                "method": cem(),
                "horizon": H,
                "action_dim": A,
                "iterations": 2,
                "execute": 1,
                "committed": 0,
                "bounds": planners.Bounds(-1.0, 1.0),
                "seed": 0,
                "batch": B,
                "block": 1,
                "tail": "zero",
                "history": 1,
                "stop": 0.1,
                "deadline": 1.0,
                "dtype": torch.float32,
                "device": "cpu",
            },
        ),
        "MPC.act": lambda: (
            planners.MPC(cem(), horizon=H, action_dim=A, iterations=2, batch=B).act,
            {"cost": near, "method": cem(), "start": randn(B, H, A)},
        ),
        "MPC.see": lambda: (
            planners.MPC(cem(), horizon=H, action_dim=A, iterations=2, batch=B).see,
            {"observation": randn(B, D)},
        ),
        "MPC.reset": lambda: (
            planners.MPC(cem(), horizon=H, action_dim=A, iterations=2, batch=B).reset,
            {"done": torch.zeros(B, dtype=torch.bool)},
        ),
        "MPC.restore": lambda: (
            planners.MPC(cem(), horizon=H, action_dim=A, iterations=2, batch=B).restore,
            {"tensors": planners.MPC(cem(), horizon=H, action_dim=A, iterations=2, batch=B).save()},
        ),
        "MPPI": lambda: (
            planners.MPPI,
            {
                "num_samples": 16,
                "temperature": 1.0,
                "std": 1.0,
                "top_k": 4,
                "adapt_std": False,
                "min_std": 0.0,
                "correlation": planners.Colored(1.0),
                "returns": "mean",
                "decay": 1.0,
            },
        ),
        "AugmentedLagrangian": lambda: (
            planners.AugmentedLagrangian,
            {
                "method": cem(),
                "constraint": lambda a: near(a)[..., None],
                "every": 10,
                "penalty": 10.0,
                "growth": 2.0,
                "tolerance": 0.001,
            },
        ),
        "BestSoFar": lambda: (planners.BestSoFar, {"method": cem()}),
        "Bounds": lambda: (
            planners.Bounds,
            {"low": [-1.0] * A, "high": [1.0] * A, "mean": 0.0, "std": 1.0},
        ),
        "Bounds.box": lambda: (
            planners.Bounds([-1.0] * A, [1.0] * A).box,
            {"like": randn(B, H, A)},
        ),
        "Bounds.to_environment": lambda: (
            planners.Bounds([-1.0] * A, [1.0] * A).to_environment,
            {"actions": randn(B, H, A)},
        ),
        "CategoricalCEM": lambda: (
            planners.CategoricalCEM,
            {
                "num_samples": 16,
                "num_elites": 4,
                "choices": A,
                "momentum": 0.1,
                "floor": 0.01,
                "restart": 0.5,
                "decay": 1.0,
            },
        ),
        "Colored": lambda: (planners.Colored, {"beta": 1.0, "unit": True}),
        "Colored.matrix": lambda: (planners.Colored(1.0).matrix, {"horizon": H}),
        "GradientDescent": lambda: (
            planners.GradientDescent,
            {"num_restarts": 2, "init_std": 1.0, "noise_std": 0.0},
        ),
        "Kernel": lambda: (planners.Kernel, {"num_support": 3, "length": 1.0}),
        "Kernel.matrix": lambda: (planners.Kernel(3).matrix, {"horizon": 5}),
        "StableWorldModelSolver": lambda: (
            planners.StableWorldModelSolver,
            {
                "method": cem(),
                "cost": Costing(),
                "iterations": 2,
                "bounds": None,
                "seed": 0,
                "batch_size": 1,
                "device": "cpu",
                "dtype": torch.float32,
                "callbacks": (),
            },
        ),
        "PredictiveSampling": lambda: (
            planners.PredictiveSampling,
            {"num_samples": 16, "std": 0.3, "correlation": None},
        ),
        "Proposals": lambda: (
            planners.Proposals,
            {
                "method": cem(),
                "candidates": randn(B, 2, H, A).clamp(-1, 1),
                "bounds": planners.Bounds(-1.0, 1.0),
            },
        ),
        "Refine": lambda: (
            planners.Refine,
            {"first": cem(), "then": planners.GradientDescent(), "after": 2},
        ),
        "SimplexGradient": lambda: (
            planners.SimplexGradient,
            {"num_restarts": 2, "choices": A, "init_std": 1.0},
        ),
        "from_dynamics": lambda: (
            planners.from_dynamics,
            {"step": step, "running_cost": distance, "terminal_cost": lambda s: s.norm(dim=-1)},
        ),
        "optimize": lambda: (
            planners.optimize,
            {
                "method": cem(),
                "cost": near,
                "plan": torch.zeros(B, H, A),
                "iterations": 2,
                "bounds": planners.Bounds(-1.0, 1.0),
                "seed": 0,
                "stop": 0.1,
                "deadline": 1.0,
                "committed": torch.zeros(B, 1, A),
                "steps": 0,
                "callback": lambda _: None,
            },
        ),
        "planning_step": lambda: (
            planners.planning_step,
            {"method": cem(), "bounds": planners.Bounds(-1.0, 1.0)},
        ),
        "split_blocks": lambda: (planners.split_blocks, {"actions": randn(B, H, A), "block": 2}),
        # worldmodel
        "GCBC": lambda: (
            worldmodel.GCBC,
            {"encoder": model().encoder, "trunk": model().predictor, "action_dim": A},
        ),
        "GCBC.forward": lambda: (cloner(), {"frames": frames(B, T), "goal": frames(B)}),
        "GCBC.act": lambda: (cloner().act, {"frames": frames(B, T), "goal": frames(B)}),
        "ActionEncoder": lambda: (
            worldmodel.ActionEncoder,
            {"action_dim": A, "dim": D, "hidden_dim": 8, "mix_dim": 8},
        ),
        "ActionEncoder.forward": lambda: (worldmodel.ActionEncoder(A, D), {"actions": actions}),
        **{
            name: (
                lambda name=name: (getattr(worldmodel, name), predictor(getattr(worldmodel, name)))
            )
            for name in (
                "AffinePredictor",
                "CausalPredictor",
                "MLPPredictor",
                "PrefixPredictor",
                "PatchPredictor",
            )
        },
        **{
            f"{name}.forward": (
                lambda name=name: (
                    getattr(worldmodel, name)(**predictor(getattr(worldmodel, name))).eval(),
                    {"embeddings": randn(B, 3, D), "actions": randn(B, 3, D)},
                )
            )
            for name in ("AffinePredictor", "CausalPredictor", "PrefixPredictor")
        },
        "PatchPredictor.forward": lambda: (
            worldmodel.PatchPredictor(**predictor(worldmodel.PatchPredictor)).eval(),
            {"embeddings": randn(B, 3, 4 * D), "actions": randn(B, 3, 2)},
        ),
        "ConvEncoder": lambda: (
            worldmodel.ConvEncoder,
            {"image_size": 16, "patch_size": 4, "width": 8, "dim": D, "projector_dim": 16},
        ),
        "ConvEncoder.forward": lambda: (model().encoder, {"frames": frames(B, T)}),
        "ViTEncoder": lambda: (
            worldmodel.ViTEncoder,
            {
                "image_size": 16,
                "patch_size": 8,
                "dim": D,
                "depth": 1,
                "heads": 2,
                "mlp_dim": 16,
                "projector_dim": 16,
            },
        ),
        "ViTEncoder.forward": lambda: (
            worldmodel.ViTEncoder(16, 8, D, 1, 2, 16, 16).eval(),
            {"frames": frames(B, T)},
        ),
        "FusedEncoder": lambda: (
            worldmodel.FusedEncoder,
            {
                "encoders": {"pixels": model().encoder, "states": worldmodel.StateEncoder(2, D)},
                "dim": D,
                "projector_dim": 16,
            },
        ),
        "FusedEncoder.forward": lambda: (
            worldmodel.FusedEncoder(
                {"pixels": model().encoder, "states": worldmodel.StateEncoder(2, D)}, D, 16
            ).eval(),
            {"observations": {"pixels": frames(B, T), "states": randn(B, T, 2)}},
        ),
        "StateEncoder": lambda: (
            worldmodel.StateEncoder,
            {"state_dim": 2, "dim": D, "hidden_dim": 8, "projector_dim": 16},
        ),
        "StateEncoder.forward": lambda: (
            worldmodel.StateEncoder(2, D).eval(),
            {"states": randn(B, T, 2)},
        ),
        "DinoPatches": lambda: (worldmodel.DinoPatches, {"architecture": DINO, "image_size": 28}),
        "Futures": lambda: (
            worldmodel.Futures,
            {"imagine": lambda z, p, a: z, "z": randn(B, 1, D), "past": None},
        ),
        "Futures.__call__": lambda: (
            model().imagine().look(frames(B, 1)),
            {"actions": randn(B, 5, H, A)},
        ),
        "Imagination": lambda: (
            worldmodel.Imagination,
            {
                "encoder": model().encoder,
                "action_encoder": model().action_encoder,
                "predictor": model().predictor,
                "dtype": torch.float32,
                "compile": False,
                "cuda_graph": False,
                "rows": None,
            },
        ),
        "Imagination.look": lambda: (
            model().imagine().look,
            {"observations": frames(B, 2), "past_actions": randn(B, 1, A)},
        ),
        "Imagination.embed": lambda: (model().imagine().embed, {"observations": frames(B, 2)}),
        "PLDMTerms": lambda: (
            worldmodel.PLDMTerms,
            {
                "variance": 18.0,
                "covariance": 12.0,
                "similarity": 0.2,
                "time_variance": 0.7,
                "time_covariance": 0.1,
                "inverse": 0.1,
                "dim": D,
                "action_dim": A,
                "hidden_dim": 8,
            },
        ),
        "PLDMTerms.forward": lambda: (
            worldmodel.PLDMTerms(inverse=0.1, dim=D, action_dim=A),
            {"z": z, "actions": actions[:, 1:]},
        ),
        "WorldModel": lambda: (
            worldmodel.WorldModel,
            {
                "encoder": model().encoder,
                "action_encoder": model().action_encoder,
                "predictor": model().predictor,
            },
        ),
        "WorldModel.encode": lambda: (model().encode, {"frames": frames(B, T)}),
        "WorldModel.predict": lambda: (
            model().predict,
            {"z": randn(B, 3, D), "actions": randn(B, 3, A)},
        ),
        "WorldModel.rollout": lambda: (
            model().rollout,
            {"z": randn(B, 2, D), "actions": randn(B, T, A)},
        ),
        "WorldModel.imagine": lambda: (
            model().imagine,
            {"dtype": torch.float32, "compile": False, "cuda_graph": False, "rows": 4},
        ),
        "export_torch": lambda: (
            worldmodel.export_torch,
            {
                "model": model(),
                "folder": folder / "exported",
                "update": planners.planning_step(cem()),
                "horizon": 2,
                "least_samples": 8,
                "known": 1,
            },
        ),
        "export_onnx": lambda: (
            worldmodel.export_onnx,
            {
                "model": model(),
                "folder": folder / "onnx",
                "update": planners.planning_step(cem()),
                "horizon": 2,
                "least_samples": 8,
                "known": 1,
            },
        ),
        "from_pretrained": lambda: (
            worldmodel.from_pretrained,
            {"source": folder / "run", "map_location": "cpu", "classes": ()},
        ),
        "from_published": lambda: (worldmodel.from_published, {"folder": folder / "absent"}),
        "gcbc_loss": lambda: (
            worldmodel.gcbc_loss,
            {
                "model": cloner(),
                "batch": batch(),
                "regularizer": sigreg.SIGReg(num_proj=4),
                "weight": 0.1,
            },
        ),
        "goal_cost": lambda: (
            worldmodel.goal_cost,
            {
                "model": model(),
                "frames": frames(B, 2),
                "goal": frames(B),
                "past_actions": randn(B, 1, A),
                "steps": "last",
                "dtype": None,
                "rows": None,
                "compile": False,
                "cuda_graph": False,
            },
        ),
        "goal_cost()": lambda: (
            worldmodel.goal_cost(model(), frames(B, 1), frames(B)),
            {"actions": randn(B, 5, H, A)},
        ),
        "jepa_loss": lambda: (
            worldmodel.jepa_loss,
            {
                "model": model(),
                "batch": batch(),
                "regularizer": sigreg.SIGReg(num_proj=4),
                "weight": 0.09,
            },
        ),
        "load": lambda: (
            worldmodel.load,
            {"folder": folder / "run", "map_location": "cpu", "classes": ()},
        ),
        "load_policy": lambda: (
            worldmodel.load_policy,
            {"folder": folder / "cloned", "map_location": "cpu", "classes": ()},
        ),
        "ComposedTerms": lambda: (
            worldmodel.ComposedTerms,
            {
                "regularizer": sigreg.SIGReg(),
                "weights": {"rollout": 1.0},
                "dim": D,
                "action_dim": A,
                "pooled": False,
            },
        ),
        "composed_loss": lambda: (
            worldmodel.composed_loss,
            {
                "model": model(),
                "batch": batch(),
                "terms": worldmodel.ComposedTerms(
                    sigreg.SIGReg(), {"rollout": 1.0}, dim=D, action_dim=A
                ),
                "weight": 1.0,
            },
        ),
        "pldm_loss": lambda: (
            worldmodel.pldm_loss,
            {
                "model": model(),
                "batch": batch(),
                "regularizer": worldmodel.PLDMTerms(),
                "weight": 1.0,
            },
        ),
        "predictor_loss": lambda: (
            worldmodel.predictor_loss,
            {
                "model": model(),
                "batch": batch()._replace(frames=randn(B, T, D)),
                "metric": heads.Head(D, D),
                "weight": 1.0,
            },
        ),
        "push_to_hub": lambda: (
            worldmodel.push_to_hub,
            {
                "folder": folder / "run",
                "repository": "owner/name",
                "private": True,
                "token": "x",
                "message": "m",
            },
        ),
        "read_config": lambda: (worldmodel.read_config, {"folder": folder / "run"}),
        "save": lambda: (
            worldmodel.save,
            {
                "model": model(),
                "folder": folder / "saved",
                "action_scale": data.ActionScale(torch.zeros(2), torch.ones(2)),
                "extra": {},
            },
        ),
        # worldmodel.data
        "ActionScale": lambda: (data.ActionScale, {"mean": torch.zeros(2), "std": torch.ones(2)}),
        "ActionScale.fit": lambda: (
            data.ActionScale.fit,
            {"episodes": episodes(), "subset": torch.tensor([0, 1])},
        ),
        "ActionScale.normalise": lambda: (
            data.ActionScale(torch.zeros(2), torch.ones(2)).normalise,
            {"actions": randn(B, T, A)},
        ),
        "BatchOrder": lambda: (
            data.BatchOrder,
            {"num": 12, "batch_size": 4, "seed": 0, "start": 0, "stop": 3, "rank": 0, "ranks": 2},
        ),
        "BatchOrder.batch": lambda: (data.BatchOrder(12, 4, seed=0).batch, {"step": 1}),
        "Episodes": lambda: (
            data.Episodes,
            {
                "frames": frames(12),
                "actions": randn(12, 2),
                "lengths": torch.tensor([6, 6]),
                "states": randn(12, 2),
                "others": {"top": frames(12)},
            },
        ),
        "Episodes.rows": lambda: (episodes().rows, {"subset": torch.tensor([0, 2])}),
        "HDF5Writer": lambda: (
            data.HDF5Writer,
            {
                "path": fresh(folder, ".h5"),
                "compression": None,
                "append": False,
                "origin": {"world": "x"},
            },
        ),
        "HDF5Writer.write": lambda: (
            data.HDF5Writer(fresh(folder, ".h5")).write,
            {
                "frames": frames(6).numpy(),
                "actions": randn(5, 2).numpy(),
                "states": randn(6, 2).numpy(),
            },
        ),
        "Windows": lambda: (
            data.Windows,
            {
                "episodes": episodes(),
                "num_frames": 3,
                "frameskip": 2,
                "scale": data.ActionScale(torch.zeros(2), torch.ones(2)),
                "subset": torch.tensor([0, 1]),
                "observations": ["pixels", "states"],
            },
        ),
        "Windows.batch": lambda: (
            data.Windows(episodes(), num_frames=3, frameskip=2).batch,
            {"index": torch.tensor([0, 2])},
        ),
        "Windows.on": lambda: (
            data.Windows(episodes(), num_frames=3, frameskip=2).on,
            {"device": torch.device("cpu")},
        ),
        "action_digest": lambda: (data.action_digest, {"actions": randn(5, 2).numpy()}),
        "episode_digests": lambda: (data.episode_digests, {"episodes": episodes()}),
        "loader": lambda: (
            data.loader,
            {
                "windows": data.Windows(episodes(), num_frames=3, frameskip=2),
                "order": data.BatchOrder(12, 4, seed=0, stop=2),
                "workers": 0,
                "pin_memory": False,
            },
        ),
        "open_hdf5": lambda: (
            data.open_hdf5,
            {"path": folder / "data.h5", "pixels": "pixels", "action": "action", "state": "state"},
        ),
        "split": lambda: (data.split, {"num": 9, "held_out": 0.3, "seed": 0}),
        # worldmodel.worlds
        "Maze": lambda: (worlds.Maze, {"image_size": 32, "layout": 3}),
        "TwoRoom": lambda: (worlds.TwoRoom, {"image_size": 16}),
        "TwoRoom.sample_states": lambda: (
            worlds.TwoRoom(16).sample_states,
            {"rng": rng(), "num": 3},
        ),
        "TwoRoom.draw": lambda: (worlds.TwoRoom(16).draw, {"states": states(3)}),
        "TwoRoom.start": lambda: (worlds.TwoRoom(16).start, {"states": states(3)}),
        "TwoRoom.success": lambda: (
            worlds.TwoRoom(16).success,
            {"states": states(3), "goals": states(3)},
        ),
        "TwoRoom.start.step": lambda: (
            worlds.TwoRoom(16).start(states(3)).step,
            {"actions": np.zeros((3, 2), np.float32)},
        ),
        "TwoRoomEnv": lambda: (worlds.TwoRoomEnv, {"image_size": 16}),
        "TwoRoomExpert": lambda: (
            worlds.TwoRoomExpert,
            {
                "world": worlds.TwoRoom(16),
                "num": 3,
                "rng": rng(),
                "noise": 0.3,
                "repeat": 0.05,
                "cross": 0.6,
                "bump": 0.0,
            },
        ),
        "TwoRoomExpert.act": lambda: (
            worlds.TwoRoomExpert(worlds.TwoRoom(16), 3, rng()).act,
            {"states": states(3)},
        ),
        "collect": lambda: (
            worlds.collect,
            {"world": worlds.TwoRoom(16), "num": 2, "length": 5, "seed": 0, "bump": 0.1},
        ),
        "open_world": lambda: (
            worlds.open_world,
            {"name": "two-room", "image_size": 16, "workers": None},
        ),
        # worldmodel.study
        "Decoder": lambda: (
            study.Decoder,
            {
                "mean": torch.zeros(3, 16, 16),
                "centre": torch.zeros(D),
                "spread": torch.ones(D),
                "width": 4,
            },
        ),
        "background": lambda: (study.background, {"frames": frames(6)}),
        "bootstrap": lambda: (
            study.bootstrap,
            {"sums": randn(9, 2), "figure": lambda s: s[..., 0], "seed": 0},
        ),
        "embed": lambda: (study.embed, {"model": model(), "frames": frames(B, T), "chunk": 2}),
        "fit_decoder": lambda: (
            study.fit_decoder,
            {"z": randn(8, D), "pictures": frames(8), "steps": 1, "batch_size": 4, "seed": 0},
        ),
        "jackknife": lambda: (
            study.jackknife,
            {"sums": randn(9, 2), "figure": lambda s: s[..., 0]},
        ),
        "mean_estimate": lambda: (study.mean_estimate, {"values": randn(9), "seed": 0}),
        "open_loop": lambda: (
            study.open_loop,
            {
                "model": model(),
                "z": randn(B, 5, D),
                "actions": randn(B, 5, A),
                "known": 2,
                "mean": torch.zeros(D),
            },
        ),
        "rank_actions": lambda: (
            study.rank_actions,
            {
                "model": model(),
                "z": randn(B, 5, D),
                "actions": randn(B, 5, A),
                "known": 2,
                "others": 3,
                "seed": 0,
            },
        ),
        "rank_correlation": lambda: (
            study.rank_correlation,
            {"costs": randn(B, 9), "truths": randn(B, 9, seed=1)},
        ),
        "paired_test": lambda: (
            study.paired_test,
            {"first": randn(9), "second": randn(9, seed=1), "seed": 0},
        ),
        "principal_components": lambda: (study.principal_components, {"z": randn(9, D), "num": 2}),
        "probe_guesses": lambda: (
            study.probe_guesses,
            {"train_z": randn(40, D), "train_y": randn(40, 2), "test_z": randn(9, D), "seed": 0},
        ),
        "proportion": lambda: (study.proportion, {"successes": 3, "trials": 9}),
        "recolour": lambda: (
            study.recolour,
            {"frames": frames(1, T), "still": frames(), "at": 1, "threshold": 24},
        ),
        "score_guesses": lambda: (
            study.score_guesses,
            {
                "guess": randn(9, 2),
                "truth": randn(9, 2, seed=1),
                "episode": torch.arange(9) // 3,
                "scale": torch.ones(2),
                "seed": 0,
            },
        ),
        "sign_test": lambda: (study.sign_test, {"differences": [0.1, -0.2, 0.3]}),
        "splice": lambda: (study.splice, {"x": randn(B, T, D), "at": 1}),
        "straightness": lambda: (study.straightness, {"z": randn(B, T, D)}),
        "surprise": lambda: (
            study.surprise,
            {"model": model(), "z": randn(B, 5, D), "actions": randn(B, 5, A), "history": 3},
        ),
        # goals and heads
        "Goal": lambda: (
            goals.Goal,
            {"terms": ((1.0, lambda z: z.sum((-1, -2))),), "last_step": False},
        ),
        "Goal.of": lambda: (
            goals.near(randn(B, D)).of,
            {"futures": lambda a: torch.zeros(*a.shape[:3], D)},
        ),
        "avoid": lambda: (
            goals.avoid,
            {"head": head(), "low": torch.zeros(2), "high": torch.ones(2)},
        ),
        "charge": lambda: (
            goals.charge,
            {"constraint": lambda z: z.sum(-1), "frames": "mean", "weights": [0.5] * H},
        ),
        "near": lambda: (
            goals.near,
            {"z_goal": randn(B, D), "frames": "last", "weights": None, "metric": head()},
        ),
        "near()": lambda: (goals.near(randn(B, D)), {"z": randn(B, 5, H, D)}),
        "region": lambda: (
            goals.region,
            {
                "head": head(),
                "low": torch.zeros(2),
                "high": torch.ones(2),
                "frames": "last",
                "weights": None,
            },
        ),
        "reward": lambda: (goals.reward, {"head": head(), "frames": "mean", "weights": None}),
        "state": lambda: (
            goals.state,
            {
                "head": head(),
                "target": torch.zeros(B, 2),
                "frames": "last",
                "weights": None,
                "scale": 1.0,
            },
        ),
        "temporal": lambda: (
            goals.temporal,
            {"head": distance, "z_goal": randn(B, D), "frames": "last", "weights": None},
        ),
        "typical": lambda: (goals.typical, {"z": randn(40, D), "share": 0.9}),
        "DistanceHead": lambda: (heads.DistanceHead, {"dim": D, "hidden": (8,)}),
        "DistanceHead.forward": lambda: (
            heads.DistanceHead(D, (8,)),
            {"z": randn(B, D), "z_goal": randn(B, D)},
        ),
        "Head": lambda: (heads.Head, {"dim": D, "out": 2, "hidden": (8,)}),
        "Head.forward": lambda: (head(), {"z": randn(B, D)}),
        "fit_distance": lambda: (
            heads.fit_distance,
            {
                "model": model(),
                "z": randn(9, 7, D),
                "actions": randn(9, 6, A),
                "reach": 3,
                "unit": 1,
                "hidden": (8,),
                "steps": 1,
                "seed": 0,
            },
        ),
        "fit_head": lambda: (
            heads.fit_head,
            {"z": randn(40, D), "y": randn(40, 2), "hidden": (), "seed": 0},
        ),
        "fit_metric": lambda: (heads.fit_metric, {"z": randn(5, 4, D), "ridge": 1e-3}),
        "load_head": lambda: (heads.load_head, {"path": folder / "head.safetensors"}),
        "save_head": lambda: (
            heads.save_head,
            {"head": head(), "path": folder / "saved.safetensors"},
        ),
        # learning, policies, values, subgoals, transitions
        "learn": lambda: (
            learning.learn,
            {
                "kind": policies.Policy,
                "z": randn(9, 12, D),
                "actions": randn(9, 11, A),
                "steps": 1,
                "batch": 8,
                "rate": 3e-4,
                "seed": 0,
                "chunk": 2,
                "hidden": (8,),
            },
        ),
        "load_learner": lambda: (
            learning.load_learner,
            {"path": folder / "learner.safetensors", "model": model()},
        ),
        "save_learner": lambda: (
            learning.save_learner,
            {
                "learner": policies.Policy(D, A, recipe()),
                "path": folder / "l.safetensors",
                "model": model(),
                "notes": {},
            },
        ),
        "Actor": lambda: (policies.Actor, {"dim": D, "action_dim": A, "recipe": recipe()}),
        "Policy": lambda: (policies.Policy, {"dim": D, "action_dim": A, "recipe": recipe()}),
        "Policy.forward": lambda: (
            policies.Policy(D, A, recipe()),
            {"z": randn(B, D), "z_goal": randn(B, D)},
        ),
        "Standard": lambda: (policies.Standard, {"dim": D}),
        "mlp": lambda: (policies.mlp, {"widths": (D, 8, 2), "norm": False, "last": 1.0}),
        "retrieve": lambda: (
            policies.retrieve,
            {
                "z": randn(9, 12, D),
                "actions": randn(9, 11, A),
                "now": randn(B, D),
                "z_goal": randn(B, D),
                "num": 2,
                "horizon": 3,
                "reach": 4,
            },
        ),
        "unroll": lambda: (
            policies.unroll,
            {
                "decide": lambda z, g: torch.zeros(B, 2, 5, A),
                "step": lambda z, a: z,
                "z": randn(B, D),
                "z_goal": randn(B, D),
                "horizon": 3,
            },
        ),
        **{
            name: (
                lambda name=name: (
                    getattr(values, name),
                    {"dim": D, "action_dim": A, "recipe": recipe()},
                )
            )
            for name in ("GCIQL", "GCIVL", "HIQL")
        },
        **{
            f"{name}.forward": (
                lambda name=name: (
                    getattr(values, name)(D, A, recipe()),
                    {"z": randn(B, D), "z_goal": randn(B, D)},
                )
            )
            for name in ("GCIQL", "GCIVL", "HIQL")
        },
        **{
            f"{name}.distance": (
                lambda name=name: (
                    getattr(values, name)(D, A, recipe()).distance,
                    {"z": randn(B, D), "z_goal": randn(B, D)},
                )
            )
            for name in ("GCIQL", "GCIVL", "HIQL")
        },
        "Graph": lambda: (subgoals.Graph, graph_arguments()),
        "Graph.of": lambda: (
            subgoals.Graph.of,
            {"z": randn(40, 4, D), "distance": distance, "num": 20, "edge": 4.0, "seed": 0},
        ),
        "Graph.toward": lambda: (graph().toward, {"z_goal": randn(B, D), "reach": 2.0}),
        "warn_beyond": lambda: (subgoals.warn_beyond, {"blocks": torch.ones(3), "horizon": 5}),
        "dino_wm": lambda: (
            presets.dino_wm,
            {"encoder": worldmodel.DinoPatches(DINO, 28), "action_dim": 2, "history": 3},
        ),
        "gcbc": lambda: (presets.gcbc, {"action_dim": 2, "image_size": 28, "history": 3}),
        "lewm": lambda: (presets.lewm, {"action_dim": 10, "image_size": 28, "history": 3}),
        "small": lambda: (
            presets.small,
            {
                "action_dim": 10,
                "image_size": 16,
                "dim": 16,
                "observations": {"pixels": 16, "states": 2},
            },
        ),
        "states": lambda: (presets.states, {"action_dim": 10, "state_dim": 2, "dim": 16}),
        "Recipe": lambda: (
            transitions.Recipe,
            {
                "chunk": 1,
                "modes": 1,
                "hidden": (8,),
                "discount": 0.99,
                "share": 0.9,
                "alpha": 10.0,
                "ahead": 5,
                "random": 0.0,
            },
        ),
        "draw": lambda: (
            transitions.draw,
            {
                "z": randn(9, 12, D),
                "actions": randn(9, 11, A),
                "num": 4,
                "recipe": recipe(),
                "generator": torch.Generator().manual_seed(0),
            },
        ),
    }
    return table


def fresh(folder: Path, suffix: str) -> Path:
    """A name that no file has."""
    return next(path for i in range(10**6) if not (path := folder / f"new-{i}{suffix}").exists())


class Costing:
    """What the platform calls a model."""

    def get_cost(self, info: Any, candidates: torch.Tensor) -> torch.Tensor:
        """Cost [B, S] of candidates."""
        return near(candidates)
