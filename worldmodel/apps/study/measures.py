"""The parts of a study: each combines measures of `worldmodel.study` into one record.

A part is a function of `Study`. If it cannot be measured, it raises `UnavailableError` with the
reason, and other parts continue. Letters: E episodes, T frames, D embedding dims, K fitted ones.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from planners import Progress, optimize, split_blocks
from sigreg import effective_rank, embedding_report
from worldmodel import checkpoint, goals
from worldmodel import study as measure
from worldmodel.apps.evaluate.policies import bounds_of, method_of
from worldmodel.apps.report.charts import LatentMap
from worldmodel.apps.runs import Run, kept_planner
from worldmodel.apps.settings import PlannerSettings
from worldmodel.apps.train.loop import read_state
from worldmodel.model import WorldModel
from worldmodel.study import Estimate, embed, mean_estimate
from worldmodel.worlds import Maze, TwoRoom, World, open_world
from worldmodel.worlds.contract import imports_code

_WIDE = 256  # wider embeddings are reduced to principal components
_POINTS = 800  # of the map, at most
_PROBLEMS, _AHEAD = 32, 5  # most searches, and most blocks to their goals
_UNIT = "variance of the held-out embeddings"
Value = TypeVar("Value")
Lens = Callable[[Tensor], Tensor]
"""Embeddings reduced for the study's own fits, [..., D] -> [..., K]."""


class UnavailableError(ValueError):
    """A part of the study cannot be measured; the message says why."""


class Found(SimpleNamespace):
    """Results under the names of study.json; `shown` is only for the page."""


class Sequences(NamedTuple):
    """E episodes of T frames at the model's frameskip: k raw actions from frame to frame."""

    frames: Tensor  #: [E, T, 3, H, W], uint8
    raw: Tensor  #: [E, (T − 1) k, A]
    actions: Tensor  #: [E, T − 1, k A], blocks as the model expects them
    states: Tensor | None  #: [E, T, S]
    z: Tensor  #: [E, T, D]


class StudyMaterial(NamedTuple):
    """Episodes to fit probes and decoder on, and other episodes to measure on."""

    fit: Sequences | None  #: None if there was only one episode
    test: Sequences
    world: TwoRoom | Maze | None  #: the built-in world of fresh episodes
    names: list[str]  #: of the state's dims
    source: str  #: description of where the episodes come from
    notes: list[str]  #: remarks for the reader


class Study(NamedTuple):
    """The input of every part."""

    run: Run
    material: StudyMaterial
    lens: Lens
    variance: float  #: mean over coordinates of the test embeddings; the unit of errors
    seed: int  #: of every fit and every interval
    steps: int  #: of the decoder's training

    def mean(self, values: Tensor) -> Estimate:
        """The mean of one value per episode, with its interval."""
        return mean_estimate(values, seed=self.seed)


def lens_of(sequences: Sequences) -> Lens:
    """Reduce embeddings to the directions of largest variance if they are wider than `_WIDE`."""
    z = sequences.z.flatten(0, 1)
    mean, keep = z.mean(0), min(_WIDE, max(len(z) // 4, 2))
    if z.shape[1] <= _WIDE:
        return lambda z: z
    basis = torch.linalg.svd((z - mean).double(), full_matrices=False).Vh[:keep].T.to(z.dtype)
    return lambda z: (z - mean) @ basis


def _need(value: Value | None, why: str) -> Value:
    """Return a value; raise UnavailableError with `why` if it is None or False."""
    if value is None or value is False:
        raise UnavailableError(why)
    return value


def _probes(study: Study) -> Found:
    """Can probes predict the true state from one embedding?"""
    why = "probes need a training and a test episode, got one episode"
    fit, test = _need(study.material.fit, why), study.material.test
    why = "the data hold no states to predict"
    states = _need(fit.states, why), _need(test.states, why)
    train_z, test_z = (study.lens(s.z).flatten(0, 1) for s in (fit, test))
    why = f"a linear probe of {train_z.shape[1]} coordinates needs more frames than that"
    _need(len(train_z) > train_z.shape[1], f"{why}, got {len(train_z)}")
    train_y, test_y = (y.flatten(0, 1).to(train_z) for y in states)
    episode = torch.arange(len(test.z)).repeat_interleave(test.z.shape[1])
    scale = train_y.std(0).cpu()
    scored = [
        measure.score_guesses(guess.cpu(), test_y.cpu(), episode, scale, seed=study.seed)
        for guess in measure.probe_guesses(train_z, train_y, test_z, seed=study.seed)
    ]
    varies = (test_y.std(0) > 1e-6 * test_y.abs().mean(0)).tolist()
    rows = zip(study.material.names, varies, *scored, strict=True)
    return Found(
        quantities=[Found(name=name, varies=moves, constant=blind, linear=line, mlp=network)
                    for name, moves, blind, line, network in rows],
        train_episodes=len(fit.z), test_episodes=len(test.z), coordinates=train_z.shape[1],
        unit="standard deviation of the quantity over the probes' training frames",
    )  # fmt: skip


def _foresight(study: Study) -> Found:
    """How wrong is an open-loop rollout at each horizon?"""
    test, model = study.material.test, study.run.world_model
    known = min(model.predictor.history, test.z.shape[1] - 2)
    _need(known > 0, f"episodes of {test.z.shape[1]} frames leave no future to predict")
    _need(study.variance > 0, "all embeddings are the same, so any guess is perfect")
    mean = (study.material.fit or test).z.flatten(0, 1).mean(0)
    errors = measure.open_loop(model, test.z, test.actions, known=known, mean=mean)
    curves = [[study.mean(e / study.variance) for e in curve.unbind(1)] for curve in errors]
    horizons = list(range(1, len(curves[0]) + 1))
    worse = (h for h, a, b in zip(horizons, *curves[:2], strict=True) if a.value >= b.value)
    return Found(
        known_frames=known, horizons=horizons, raw_steps_per_horizon=study.run.frameskip,
        model=curves[0], copy=curves[1], mean=curves[2],
        first_horizon_no_better_than_copying=next(worse, None),
        unit=f"{_UNIT} (1 is what their mean scores)",
    )  # fmt: skip


def _actions(study: Study) -> Found:
    """Does the model rank the true actions before those of other episodes?"""
    test, model = study.material.test, study.run.world_model
    known = min(model.predictor.history, test.z.shape[1] - 2)
    _need(known > 0, f"episodes of {test.z.shape[1]} frames leave no future to predict")
    _need(study.variance > 0, "all embeddings are the same, so actions have no effect")
    _need(len(test.z) > 1, "the actions of other episodes are needed, got one episode")
    found = measure.rank_actions(model, test.z, test.actions, known=known, seed=study.seed)
    rank, variation = ([study.mean(x) for x in part.unbind(1)] for part in found)
    horizons = list(range(1, len(rank) + 1))
    return Found(known_frames=known, horizons=horizons, rank=rank, variation=variation)


def _ranking(study: Study) -> Found:
    """Do costs order candidate plans as the simulator does, in early and late iterations?"""
    run, test, world = study.run, study.material.test, _known_world(study)
    _need(study.variance > 0, "all embeddings are the same, so all plans cost the same")
    num, last, k = min(len(test.z), _PROBLEMS), test.z.shape[1] - 1, run.frameskip
    kept = kept_planner(run.folder)
    planner = PlannerSettings.model_validate(kept.settings if kept else {})
    if planner.planner == "proposals":  # it does not search from random candidates
        planner = PlannerSettings()
    free = k if planner.free else 1
    # As `evaluate` plans: from the last frames and the actions between them.
    now = min(planner.history or run.world_model.predictor.history, last) - 1
    ahead = min(last - now, _AHEAD)
    starts, ends = (_need(test.states, "")[:num, t].numpy() for t in (now, now + ahead))
    near = goals.near(test.z[:num, now + ahead], planner.cost)
    frames = test.frames[:num, : now + 1].to(test.z.device)
    futures = run.world_model.imagine().look(frames, test.actions[:num, :now] if now else None)
    box, iterations = bounds_of(world, run.scale), planner.budget[1]
    stages = {0: "first", iterations // 2: "middle", iterations - 1: "last"}
    found = list[Found]()

    def judge(progress: Progress) -> None:
        if progress.iteration not in stages:
            return
        # [B, S, H, k A] in the model's units -> [B S, H k, A] in the world's.
        blocks = progress.candidates.repeat(1, 1, 1, k // free).flatten(0, 1)
        raw = split_blocks(blocks, k).cpu() * run.scale.std + run.scale.mean
        S = progress.candidates.shape[1]
        away, goal = list[np.ndarray[Any, Any]](), ends.repeat(S, axis=0)
        with closing(world.start(starts.repeat(S, axis=0))) as session:
            for step, action in enumerate(raw.float().numpy().swapaxes(0, 1), start=1):
                state = session.step(action)
                if step % k == 0:
                    away.append(world.distance(state, goal))
        # The true distance at the frames that the cost looks at.
        seen = away[-1:] if planner.cost == "last" else away
        real = np.min(seen, axis=0) if planner.cost == "nearest" else np.mean(seen, axis=0)
        truth = torch.from_numpy(real).reshape(num, S)
        order = measure.rank_correlation(progress.costs, truth)
        chosen = truth.gather(1, progress.costs.argmin(1, keepdim=True).cpu())[:, 0]
        found.append(Found(
            stage=stages[progress.iteration], correlation=study.mean(order),
            chosen=study.mean(chosen), best=study.mean(truth.amin(1)),
        ))  # fmt: skip

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "most candidates", RuntimeWarning)
        optimize(
            method_of(planner),
            lambda plans: near(futures(plans.repeat(1, 1, 1, k // free))),
            torch.zeros(num, planner.horizon, world.action_dim * free, device=test.z.device),
            iterations=iterations, bounds=box, seed=study.seed, callback=judge,
        )  # fmt: skip
    return Found(
        planner=planner.described(),
        raw_steps_to_goal=ahead * k,
        problems=num,
        stages=found,
        unit=world.criterion,
    )


def _known_world(study: Study) -> World:
    """The simulator of the run's world; UnavailableError if there is none."""
    test, name = study.material.test, study.run.world
    states = _need(test.states, "the data hold no states to try plans from")
    # A file may name a class, but only the user's --env lets it be imported.
    _need(name is not None and not imports_code(name), "the run's world is not a built-in one")
    try:
        world = study.material.world or open_world(str(name))
    except (ImportError, ValueError) as error:
        raise UnavailableError(str(error)) from None
    _need(world.state_dim == states.shape[-1], f"the states of the data are not those of {name}")
    return world


def _violations(study: Study) -> Found:
    """Violation of expectation: does the prediction error rise at a teleport or a recolour?"""
    test, model = study.material.test, study.run.world_model
    E, T = test.z.shape[:2]
    at = T // 2
    _need(T > 2, f"episodes of {T} frames have no middle")
    _need(study.variance > 0, "all embeddings are the same, so the error cannot rise")
    _need(E > 1, "a paired test needs at least two episodes, got one")
    still = measure.background(test.frames[:, :: max(T // 4, 1)])
    conditions = {
        "undisturbed": (test.frames, test.actions),
        "recolour": (measure.recolour(test.frames, still, at), test.actions),
        "teleport": _teleported(study, at),
    }
    curves, changed = dict[str, Tensor](), {}
    for name, (frames, actions) in conditions.items():
        z = test.z if frames is test.frames else embed(model, frames)
        found = measure.surprise(model, z, actions, history=model.predictor.history)
        curves[name] = (found / study.variance).cpu()
        if frames is not test.frames:
            differs = (frames[:, at].short() - test.frames[:, at].short()).abs().amax(1) > 24
            changed[name] = mean_estimate(differs.flatten(1).float().mean(1))
    why = "nothing stands out from the background, so nothing could be recoloured"
    _need(changed["recolour"].value > 0, why)
    pairs = (("teleport", "undisturbed"), ("recolour", "undisturbed"), ("teleport", "recolour"))
    tests = {
        f"{a} against {b}": measure.paired_test(
            curves[a][:, at - 1], curves[b][:, at - 1], seed=study.seed
        )
        for a, b in pairs
    }
    elsewhere = (
        "the agent is moved at least a quarter of the world away, and continues from there with "
        "the same actions"
    )
    another = "the episode continues with the frames and actions of another one (a splice)"
    return Found(
        at_frame=at, frames=list(range(1, T)), tests=tests, pixels_changed=changed,
        surprise={k: [study.mean(s) for s in values.unbind(1)] for k, values in curves.items()},
        teleport_is=elsewhere if study.material.world else another,
        unit=_UNIT,
        shown={name: frames[0, at - 1 : at + 1].permute(0, 2, 3, 1).numpy()
               for name, (frames, _) in conditions.items()},
    )  # fmt: skip


def _teleported(study: Study, at: int) -> tuple[Tensor, Tensor]:
    """Frames and actions of episodes whose agent is teleported at frame `at`."""
    test, world = study.material.test, study.material.world
    if world is None or test.states is None:
        return measure.splice(test.frames, at), measure.splice(test.actions, at)
    k, frames, rng = study.run.frameskip, test.frames.clone(), np.random.default_rng(study.seed)
    # At least a quarter of the world away.
    now, here = test.states[:, at].numpy().copy(), test.states[:, at].numpy()
    while (near := world.distance(now, here) < world.size / 4).any():
        now[near] = world.sample_states(rng, int(near.sum()))
    for t in range(at, test.z.shape[1]):
        frames[:, t] = torch.from_numpy(world.render(now))
        for action in test.raw[:, t * k : (t + 1) * k].unbind(1):
            now = world.step(now, action.numpy())
    return frames, test.actions


def _straightness(study: Study) -> Found:
    """How straight are latent paths, before, during and after training?"""
    run, test = study.run, study.material.test
    _need(test.z.shape[1] > 2, f"a path of {test.z.shape[1]} frames has no two moves")

    def of(paths: Tensor | WorldModel | None) -> Estimate | None:
        z = embed(paths, test.frames) if isinstance(paths, WorldModel) else paths
        return None if z is None else study.mean(measure.straightness(z))

    now = of(test.z)
    _need(now and now.n > 0, "the embeddings do not move, so their paths have no direction")
    steps = [Found(step=step, straightness=of(then)) for step, then in _checkpoints(run)]
    rest = {"untrained": of(_untrained(run)), "checkpoints": steps}
    return Found(trained=now, true_states=of(test.states), **rest)


def _untrained(run: Run) -> WorldModel | None:
    """The same architecture with fresh weights; None if the encoder is frozen."""
    fresh = copy.deepcopy(run.world_model)
    if not any(p.requires_grad for p in fresh.encoder.parameters()):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(run.settings.get("seed", 0)))
        fresh.encoder = type(fresh.encoder)(**fresh.encoder.config)
    return fresh.eval().to(next(run.world_model.parameters()).device)


def _checkpoints(run: Run) -> Iterator[tuple[int, WorldModel]]:
    """Earlier models of the run, oldest first: numbered folders, and training states."""
    found = [path.parent for path in run.folder.glob(f"*/{checkpoint.CONFIG}")]
    found += run.folder.glob("checkpoints/step-*.safetensors")
    numbers = {path: int(n[-1]) for path in found if (n := re.findall(r"\d+", path.stem))}
    device = next(run.world_model.parameters()).device
    for path in sorted(numbers, key=numbers.__getitem__):
        if path.is_dir():
            yield numbers[path], checkpoint.load(path, device)
            continue
        # A damaged state is left out, as --resume does.
        with suppress(ValueError):
            state, own, then = read_state(path)[0], "model.", copy.deepcopy(run.world_model)
            then.load_state_dict({k[len(own) :]: v for k, v in state.items() if k.startswith(own)})
            yield numbers[path], then


def _spread(study: Study) -> Found:
    """How many directions do embeddings use, and how near are they to a Gaussian?"""
    test = study.material.test
    z = study.lens(test.z)
    E, T, K = z.shape
    _need(E > 1, "a covariance needs at least two episodes, got one")
    centred = (z - z.flatten(0, 1).mean(0)).double()
    if study.variance <= 0:
        # The rest of one point is rounding, which would have a rank.
        centred = torch.zeros_like(centred)
    squares = torch.einsum("etk,etl->ekl", centred, centred).flatten(1)
    sums = torch.cat([squares, centred.sum(1), centred.new_full((E, 1), float(T))], dim=1)

    def rank(total: Tensor) -> Tensor:
        square, mean, n = total.split([K * K, K, 1], dim=-1)
        mean = mean / n
        covariance = (square / n).unflatten(-1, (K, K)) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return effective_rank(covariance)

    state_rank = None
    if test.states is not None:
        y = test.states.flatten(0, 1).double()
        y = (y - y.mean(0)) / y.std(0).clamp_min(1e-9 * y.abs().amax(0)).clamp_min(1e-300)
        state_rank = float(effective_rank(y.T @ y))
    # One batch per time step, as the regularizer gets them.
    said = embedding_report(z.transpose(0, 1), num_proj=256, seed=study.seed, state_rank=state_rank)
    values = torch.linalg.eigvalsh(torch.cov(centred.flatten(0, 1).T).reshape(K, K)).flip(0)
    share = values.clamp_min(0) / values.clamp_min(0).sum().clamp_min(1e-300)
    return Found(
        effective_rank=measure.jackknife(sums, rank), embedding_dims=test.z.shape[-1],
        spectrum=share[:64].tolist(), verdict=said.verdict,
        report={k: v for k, v in vars(said).items() if isinstance(v, (int, float))},
    )  # fmt: skip


def _pictures(study: Study) -> Found:
    """What does a decoder show of embeddings and of rollouts?"""
    why = "a decoder needs a training and a test episode, got one episode"
    fit, test = _need(study.material.fit, why), study.material.test
    small, seed, T = _small(test.frames), study.seed, test.z.shape[1]
    seen, shrunk = study.lens(fit.z).flatten(0, 1).cpu(), _small(fit.frames).flatten(0, 1)
    decoder = measure.fit_decoder(seen, shrunk, steps=study.steps, seed=seed)
    known = min(study.run.world_model.predictor.history, T - 1)
    with torch.no_grad():
        dreamt = study.run.world_model.rollout(test.z[:, :known], test.actions)
        painted = _by_parts(decoder, study.lens(test.z).cpu())
        future = _by_parts(decoder, study.lens(dreamt).cpu())
    truth = small.float() / 255
    error, blind = ((g - truth).square().flatten(1).mean(1) for g in (painted, decoder.mean))
    sums = torch.stack([error, blind, torch.ones_like(error)], dim=1)
    # The last known frame, and up to six later ones, evenly spaced.
    ahead = torch.linspace(known, T - 1, min(6, T - known)).round().int().tolist()
    columns = [known - 1, *ahead]
    strips = [
        Found(truth=_array(truth[e, columns]), seen=_array(painted[e, columns]),
              dreamt=[None, *(_array(future[e, t - known]) for t in ahead)])
        for e in range(min(3, len(test.z)))
    ]  # fmt: skip
    figures: dict[str, Callable[[Tensor], Tensor]] = {
        "explained_share": lambda s: 1 - s[..., 0] / s[..., 1],
        "pixel_mse": lambda s: s[..., 0] / s[..., 2],
        "mean_picture_mse": lambda s: s[..., 1] / s[..., 2],
    }
    return Found(
        **{name: measure.bootstrap(sums, of, seed=seed) for name, of in figures.items()},
        side=small.shape[-1], known_frames=known, columns=[t - known + 1 for t in columns],
        steps=study.steps, shown=strips,
    )  # fmt: skip


def _small(frames: Tensor) -> Tensor:
    """Frames of 64 pixels a side at most, a multiple of 16, each an average over its area."""
    size = (min(64, max(frames.shape[-1] // 16, 1) * 16),) * 2
    if frames.shape[-2:] == size:
        return frames
    return _by_parts(lambda x: interpolate(x.float(), size, mode="area").round().byte(), frames)


def _by_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of [N, …] applied to [E, T, …], a few rows at a time."""
    parts = [function(part) for part in x.flatten(0, 1).split(256)]
    out: Tensor = torch.cat(parts).unflatten(0, x.shape[:2])
    return out


def _array(pictures: Tensor) -> Any:
    """[..., 3, S, S] in 0…1 -> uint8 [..., S, S, 3]."""
    return (pictures * 255).round().byte().movedim(-3, -1).numpy()


def _map(study: Study) -> Found:
    """The two directions of largest variance, coloured by the true state."""
    test, world = study.material.test, study.material.world
    _need(study.variance > 0, "all embeddings are the same point")
    z = study.lens(test.z).flatten(0, 1).cpu()
    every = -(-len(z) // _POINTS)
    coordinates, share = measure.principal_components(z)
    time = torch.arange(test.z.shape[1]).repeat(len(test.z))[:, None]
    true = time if test.states is None else test.states.flatten(0, 1)[:, :2].cpu()
    points, places = (x[::every].double().numpy() for x in (coordinates, true))
    shown = LatentMap(share.tolist(), points, places, in_picture=world is not None)
    by = "time" if test.states is None else " and ".join(study.material.names[:2])
    return Found(share=shown.share, coloured_by=by, shown=shown)


PARTS: dict[str, Callable[[Study], Found]] = {
    part.__name__.removeprefix("_"): part
    for part in (
        _probes,
        _foresight,
        _actions,
        _ranking,
        _violations,
        _straightness,
        _spread,
        _pictures,
        _map,
    )
}
"""Parts by name, in the order of the report."""
