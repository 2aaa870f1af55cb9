"""What each command is told: one frozen record a command, the only place of a setting.

A field holds the name, default, help and range of a setting; `parsing.py` makes flags, help
and settings files of it. Nothing here imports torch, so `--help` and most mistakes are quick.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import CliPositionalArg, CliSuppress

__all__ = [
    "CollectSettings",
    "CompareSettings",
    "ConvertSettings",
    "DemoSettings",
    "EvaluateSettings",
    "InspectSettings",
    "ManifestSettings",
    "PlannerSettings",
    "Recipe",
    "RenderSettings",
    "Settings",
    "StudySettings",
    "TrainSettings",
    "TrialSettings",
    "TuneSettings",
    "ViewSettings",
]

_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Workers = Annotated[int, Field(ge=0, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Protocol = Literal["held-out", "historical"]
BUILT_IN = "two-room"


def _absolute(text: str) -> str:
    """A path as it reads from any folder; what is no path (the id of a data set) stays."""
    return os.path.abspath(text) if text != BUILT_IN and os.path.exists(text) else text  # noqa: PTH100, PTH110 - a link stays a link


Source = Annotated[str, AfterValidator(_absolute)]
Existing = Annotated[Path, AfterValidator(lambda path: Path(_absolute(str(path))))]
Part = Literal["encoder", "action_encoder", "predictor"]

_DATA = "HDF5 file, LeRobot folder, Minari folder or id"
_DEVICE = "cpu, cuda, cuda:1, mps, ...; auto: a GPU if there is one"
_WORLD = "two-room, push-t, reacher, cube, or a class of your own as package.module:Class"


def _device() -> Any:
    return Field("auto", description=_DEVICE)


def _column(what: str) -> Any:
    return Field(None, description=f"column of the {what}; none: the format's usual one")


class Settings(BaseModel):
    """What every command takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    examples: ClassVar[str] = ""
    may_change: ClassVar[tuple[str, ...]] = ()
    """Settings that may differ when a run is resumed: they decide no number."""

    config: Path | None = Field(
        None, exclude=True, description="YAML or JSON file of settings; flags win over it"
    )
    debug: bool = Field(False, exclude=True, description="show the traceback of an error")

    def common(self, kind: type[Settings]) -> dict[str, Any]:
        """Values of the settings that another command has under the same names."""
        return self.model_dump(include=set(kind.model_fields))

    def changed(self, before: Settings) -> list[str]:
        """Settings that differ from those of an earlier run and decide its numbers, in words."""
        then, now = before.model_dump(mode="json"), self.model_dump(mode="json")
        return [
            f"{name} {then[name]} → {value}"
            for name, value in now.items()
            if value != then[name] and name not in self.may_change
        ]


class CollectSettings(Settings):
    """Let a scripted or random policy act, and write what it sees and does."""

    may_change = ("out", "resume", "workers", "episodes", "compression")

    env: str = Field("two-room", description=f"the world: {_WORLD}")
    policy: str | None = Field(None, description="who acts; none: the world's first policy")
    episodes: Count = Field(description="episodes the file shall hold")
    length: Count = Field(100, description="actions in an episode, one fewer than its frames")
    size: Count = Field(64, description="side of a frame in pixels")
    seed: Seed = Field(0, description="decides starts, targets and noise")
    bump: Fraction = Field(
        0.0,
        description="how often two-room's expert heads straight at a target, wall or no wall; the "
        "demo has 0.4: a model that never saw the wall stop anybody plans through it",
    )
    out: Path = Field(description="HDF5 file to create")
    resume: bool = Field(
        False, description="continue --out if it exists: after an interruption, or to more episodes"
    )
    workers: Workers | None = Field(
        None, description="processes that simulate and draw, not for two-room; none: the world's"
    )
    compression: Literal["gzip", "lzf"] | None = Field(
        None, description="smaller files that read far more slowly"
    )


class _Columns(Settings):
    """Which columns of a data set are read."""

    pixels: str | None = _column("frames")
    action: str | None = _column("actions")
    state: list[str] | None = Field(None, description="columns of the states")


class InspectSettings(_Columns):
    """Say what is in a data set, and draw a contact sheet of it."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    sheet: Path | None = Field(
        None, description="where to draw the contact sheet; none: DATA.sheet.png in this folder"
    )


class ConvertSettings(_Columns):
    """Write pixels, actions and states of any data set we read as HDF5."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count | None = Field(None, description="resize frames to this side; none: as they are")
    compression: Literal["gzip", "lzf"] | None = Field(
        None, description="smaller files that read far more slowly"
    )


class RenderSettings(Settings):
    """Draw the states of a collected file at another size."""

    data: CliPositionalArg[Existing] = Field(description="HDF5 file that collect wrote")
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count = Field(description="side of a frame in pixels")
    env: str | None = Field(
        None, description="the world if it is a class of your own; none: as the file says"
    )
    workers: Workers | None = Field(
        None, description="processes that draw, not for two-room; none: the world's"
    )
    compression: Literal["gzip", "lzf"] | None = Field(
        None, description="smaller files that read far more slowly"
    )


class Recipe(Settings):
    """What the training loop is told; the defaults are the published recipe (LeWM).

    Batch, rate and weight belong together, for the regularizer's strength grows with the batch.
    """

    steps: Count | None = Field(
        None, description="optimizer steps; the cosine ends there; none: 10 passes over the data"
    )
    batch_size: Count = Field(128, description="windows per step, over all ranks")
    seed: Seed = Field(3072, description="of weights, split, batches, dropout and directions")
    learning_rate: Positive = Field(5e-5, description="peak of the schedule")
    weight: Weight = Field(
        0.09, description="λ, weight of SIGReg; its effect grows with the batch; pldm: 1, gcbc: 0"
    )
    weight_decay: Weight = Field(1e-3, description="of AdamW")
    clip: Positive = Field(1.0, description="largest norm of the gradient")
    warmup: Fraction = Field(0.01, description="fraction of the steps with a rising rate")
    num_proj: Annotated[int, Field(ge=1, le=2**20)] = Field(
        1024, description="directions SIGReg looks along"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the network; auto: bfloat16 on a GPU that has it"
    )
    schedule_from: CliSuppress[Natural] = Field(
        0,
        description="step at which the schedule began, set when a finished run is extended",
    )


class TrainSettings(Recipe):
    """Train a world model on episodes of pixels and actions, and leave a run folder.

    The loss has two terms: the error of the predicted next embedding, and weight × SIGReg, which
    keeps the embeddings spread out as a Gaussian. In a healthy run the prediction loss falls while
    SIGReg falls towards its floor (1.05 for a Gaussian batch). If the prediction loss falls and
    SIGReg grows, the embeddings collapse; an alarm says so and what to change.

    Every setting is a flag, a key=value, or a key of a settings file. key=value wins over flags,
    flags over --config, --config over the preset. Arguments of the model's parts have the part's
    name in front: predictor.dropout=0, encoder.depth=6.

    The defaults below are those of the chosen preset. "lewm" is the published recipe (LeWM,
    arXiv:2603.19312, released configuration); "small" is for a CPU.
    """

    examples = """\
examples:
  worldmodel data collect --env two-room --episodes 800 --length 80 --bump 0.4 --out walks.h5
  worldmodel train --data walks.h5 --steps 600 --out runs/first
  worldmodel train --data pusht.h5 --preset lewm --workers 8 --out runs/pusht
  worldmodel train --data walks.h5 --out runs/b weight=0.02 predictor.dropout=0
  worldmodel train --data walks.h5 --config runs/b/train.json --seed 1 --out runs/c
  worldmodel train --resume --out runs/first
  worldmodel train --resume --steps 1200 --out runs/first
  torchrun --nproc-per-node 4 -m worldmodel train --data pusht.h5 --preset lewm --out runs/d

what is in the run folder:
  train.json         every setting, also those you did not give; --config reads it
  checkpoints/       the last two states; --resume continues from them, bit for bit on a CPU
  model.safetensors, config.json, episodes.json
                     the model of the newest checkpoint, for worldmodel.load and other commands
  curves.csv, held_out.csv, tensorboard/
                     losses, excess over SIGReg's floor, effective rank, spread, rate
  curves.png, report.json, index.html
                     at the end

on several processes the batch is shared out: N of them with batch B train as one with batch B;
--sharded shares out the weights too.
"""
    may_change = (
        "out",
        "resume",
        "data",
        "workers",
        "device",
        "sharded",
        "wandb",
        "pixels",
        "action",
        "init_from",
    )

    out: Path = Field(exclude=True, description="the run folder")
    resume: bool = Field(False, exclude=True, description="continue the run in --out")
    data: Source = Field(description=_DATA)
    pixels: str | None = _column("frames")
    action: str | None = _column("actions")
    world: str | None = Field(
        None, description="world the data come from, kept for evaluate; none: as the file says"
    )
    num_frames: Annotated[int, Field(ge=2, le=_MOST)] = Field(
        4, description="frames of a window; at most predictor.history + 1; gcbc: 6, its goals too"
    )
    frameskip: Count = Field(
        5, description="raw steps between two frames, whose actions make one block"
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="fraction of the episodes kept out of training"
    )
    preset: Literal["small", "lewm"] = Field("small", description="model and defaults")
    init_from: Existing | None = Field(
        None, description="run folder whose weights this run begins with (fine-tuning)"
    )
    objective: Literal["lewm", "pldm", "gcbc"] = Field("lewm", description="what is minimised")
    checkpoint_every: Count = Field(
        1000, description="steps between two checkpoints; the last two are kept"
    )
    report_every: Count | None = Field(
        None, description="steps between two rows of curves.csv; none: 200 rows"
    )
    held_out_windows: Count = Field(
        512, description="of the held-out episodes, scored at every checkpoint"
    )
    device: str = _device()
    workers: Workers = Field(2, description="processes that load data ahead; decides no number")
    sharded: bool = Field(
        False, description="each process holds a part of the weights (FSDP2), not all"
    )
    wandb: bool = Field(False, description="also log to Weights & Biases, if installed")
    model: dict[Part, dict[str, Any]] = Field(
        {}, description="arguments of the model's parts; on the command line part.name=value"
    )


class TuneSettings(Settings):
    """Find λ, the weight of SIGReg, by bisection on its logarithm.

    Each run is short, starts from the same weights, and is judged on episodes it has not seen:

      prediction    error, as a fraction of the error of predicting no change; rises with λ
      distribution  SIGReg above its floor, as a fraction of a collapse's; falls with λ

    The λ where they meet keeps the larger of the two as small as it can be.
    """

    examples = """\
examples:
  worldmodel tune-lambda                            the built-in world, into runs/tune
  worldmodel tune-lambda --data walks.h5 --out t    your own episodes
  worldmodel tune-lambda --resume --high 10         look further, keep what was tried
"""
    may_change = ("low", "high", "runs", "device")

    data: Source = Field(BUILT_IN, description=f"{_DATA}, or the built-in world {BUILT_IN}")
    out: Path = Field(Path("runs/tune"), exclude=True, description="folder to create")
    low: Positive = Field(1e-3, description="smallest weight")
    high: Positive = Field(1.0, description="largest weight")
    runs: Annotated[int, Field(ge=3, le=1000)] = Field(
        7, description="short runs, both ends included; one more halves the range left"
    )
    steps: Count = Field(150, description="training steps of each run")
    preset: Literal["small", "lewm"] = Field("small", description="the model")
    batch_size: Count = Field(64, description="windows per step, those of the long run")
    learning_rate: Positive = Field(1e-3, description="peak of the schedule")
    warmup: Fraction = Field(0.1, description="fraction of the steps with a rising rate")
    num_proj: Annotated[int, Field(ge=1, le=2**20)] = Field(
        256, description="directions SIGReg looks along"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="of the network, that of the long run"
    )
    frameskip: Count = Field(5, description="raw actions between two frames")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="fraction of the episodes that judge"
    )
    windows: Annotated[int, Field(ge=2, le=_MOST)] = Field(
        1024, description="held-out windows that judge, at most"
    )
    seed: Seed = Field(0, description="of data, split, weights and batches, alike in every run")
    device: str = _device()
    resume: bool = Field(
        False,
        exclude=True,
        description="continue the search in --out; --low, --high and --runs may differ",
    )

    @model_validator(mode="after")
    def _ordered(self) -> TuneSettings:
        if self.low >= self.high:
            raise ValueError(f"low must be below high = {self.high:g}, got {self.low:g}")
        return self


class StudySettings(Settings):
    """Measure what a run has learned, on episodes it was not trained on.

    Probes of the true state, violation of expectation, straightness of latent paths, error against
    horizon, effective rank, decoded rollouts and a map. Writes study.json and one HTML page that
    needs no network.
    """

    examples = """\
examples:
  worldmodel study runs/demo                       into the run's folder
  worldmodel study runs/mine --data pushes.h5      the episodes of a file that are new to the run
  worldmodel study runs/demo --out somewhere       another folder
"""

    run: CliPositionalArg[Existing] = Field(
        description="run folder of demo or train, a released LeWM folder, or owner/name on the hub"
    )
    data: Source | None = Field(
        None,
        description=f"{_DATA}; none: fresh episodes of the built-in world, or what the run kept "
        "apart",
    )
    out: Path | None = Field(None, description="where to write; none: the run folder")
    episodes: Count = Field(
        100, description="episodes to measure, and as many again to fit probes on"
    )
    steps: Count = Field(400, description="training steps of the decoder")
    seed: Seed = Field(0, description="of episodes, fits and intervals")
    force: bool = Field(False, description="replace an earlier study of the same run")
    device: str = _device()


class ViewSettings(Settings):
    """Write a page on which a run plans in the browser, and serve it on this machine.

    The page needs no network and works from any static host. Two-Room and the maze are simulated
    in it; of any other world it shows recorded episodes.
    """

    examples = """\
examples:
  worldmodel view runs/demo                        writes runs/demo/view and serves it
  worldmodel view runs/demo --out DIR --no-serve   only writes the folder
  worldmodel view runs/mine --data pushes.h5       episodes of a file
"""

    run: CliPositionalArg[Existing] = Field(
        description="run folder of demo or train, a released LeWM folder, or owner/name on the hub"
    )
    data: Source | None = Field(
        None, description=f"{_DATA}; none: fresh episodes of a world that the page has"
    )
    out: Path | None = Field(None, exclude=True, description="folder to write; none: RUN/view")
    runtime: Existing | None = Field(
        None, description="folder with the files of onnxruntime-web; none: a cache, filled by npm"
    )
    serve: bool = Field(True, exclude=True, description="only write the folder")
    open: bool = Field(False, exclude=True, description="open the page in a browser")
    port: int = Field(8734, ge=0, lt=65536, exclude=True, description="to serve at; 0: any")
    episodes: Count = Field(100, ge=8, description="episodes to draw the map of")
    pairs: Natural = Field(50, description="start and goal pairs that Python tries for comparison")
    seed: Seed = Field(0, description="of episodes and pairs")


class ManifestSettings(Settings):
    """Write down a task: starts, goals, budget, criterion, seeds and versions, with a hash.

    Pairs come from episodes nobody trains on: fresh walks (two-room), or those of --data.
    """

    env: str = Field(description=f"the world: {_WORLD}")
    pairs: Count = Field(200, description="how many")
    offset: Count = Field(25, description="steps from start to goal in the source episode")
    budget: Count = Field(50, description="steps allowed")
    seed: Seed = Field(0, description="of the draw")
    data: Source | None = Field(None, description=f"episodes with states to draw from: {_DATA}")
    state: list[str] | None = Field(None, description="columns of --data that hold the state")
    unseen_by: Existing | None = Field(
        None, description="leave out the episodes of --data that this run was trained on"
    )
    protocol: Protocol = Field(
        "held-out", description="historical keeps pairs that are solved already"
    )
    out: Path = Field(description="file to write")

    @model_validator(mode="after")
    def _needs_data(self) -> ManifestSettings:
        if self.data is None and (self.unseen_by or self.state):
            raise ValueError("unseen-by and state go with --data")
        return self


class PlannerSettings(Settings):
    """Which planner, with which settings; the defaults are those of the demo.

    Each default spends 384 rollouts a decision, of which "gradient" also takes the gradient.
    """

    planner: Literal["cem", "icem", "mppi", "gradient", "predictive-sampling"] = Field(
        "cem", description="who searches"
    )
    samples: Count | None = Field(
        None, description="candidates per iteration, or starts of gradient; none: 64, gradient 16"
    )
    iterations: Count | None = Field(None, description="per decision; none: 6, gradient 24")
    elites: Count = Field(8, description="of cem and icem, and candidates that mppi averages")
    horizon: Count = Field(5, description="blocks planned ahead")
    execute: Count = Field(1, description="blocks done before the next plan")
    together: Count | None = Field(
        16, description="problems in one call of the model, fixed for equal rounding"
    )
    std: Positive = Field(1.0, description="spread of the first candidates")
    temperature: Positive = Field(1.0, description="of mppi, in units of the cost")
    rate: Positive = Field(0.1, description="step size of gradient")
    cost: Literal["last", "mean", "nearest"] = Field(
        "nearest", description="which predictions are compared with the goal"
    )
    free: bool = Field(
        False, description="search every raw action of a block, not one that is held over it"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the predictor while planning"
    )
    compile: bool = Field(False, description="compile the predictor (torch.compile)")
    cuda_graph: bool = Field(
        False, description="record the cost as a CUDA graph; not with gradient"
    )

    _used_by: ClassVar[dict[str, tuple[str, ...]]] = {
        "elites": ("cem", "icem", "mppi"),
        "temperature": ("mppi",),
        "rate": ("gradient",),
    }

    @property
    def budget(self) -> tuple[int, int]:
        """Candidates per iteration, and iterations; their product is the same for every default."""
        usual = (16, 24) if self.planner == "gradient" else (64, 6)
        return self.samples or usual[0], self.iterations or usual[1]

    def described(self) -> dict[str, str | int | float | bool | None]:
        """The planner's settings as results name them."""
        values = self.common(PlannerSettings)
        samples, iterations = self.budget
        name, held = values.pop("planner"), not values.pop("free")
        sizes = {"samples": samples, "iterations": iterations, "held": held}
        return {"name": name, **values, **sizes}

    @model_validator(mode="after")
    def _fits(self) -> PlannerSettings:
        if self.execute > self.horizon:
            raise ValueError(
                f"execute must be at most horizon = {self.horizon}, got {self.execute}"
            )
        for name, planners in self._used_by.items():
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and self.planner not in planners:
                raise ValueError(
                    f"{name} is a setting of {', '.join(planners)}, got it with planner "
                    f"{self.planner}"
                )
        if self.elites < 2 and self.planner in ("cem", "icem"):
            raise ValueError(f"elites must be at least 2 for {self.planner}, got {self.elites}")
        least = {"cem": self.elites, "icem": 2 * self.elites, "mppi": self.elites, "gradient": 1}
        if self.budget[0] < least.get(self.planner, 2):
            raise ValueError(
                f"samples must be at least {least.get(self.planner, 2)} for {self.planner} with "
                f"elites {self.elites}, got {self.budget[0]}"
            )
        if self.cuda_graph and self.planner == "gradient":
            raise ValueError("cuda_graph records no gradients, got it with planner gradient")
        return self


class TrialSettings(PlannerSettings):
    """How a policy is tried on the pairs of a manifest."""

    batch_size: Count = Field(64, description="pairs side by side; changes no outcome")
    seeds: Count = Field(1, description="try every pair this often, with other seeds each time")
    protocol: Protocol = Field(
        "held-out", description="historical allows training rows and counts 50 pairs"
    )
    env: str | None = Field(
        None, description="a class of your own that the manifest names, as package.module:Class"
    )
    workers: Workers | None = Field(
        None, description="processes that simulate, not for two-room; none: the world's choice"
    )


class EvaluateSettings(TrialSettings):
    """Plan with a trained model on every pair of a manifest.

    A random policy, an idle one and the scripted expert try the same pairs. Leaves result.json,
    films and one HTML page in --out. The same command continues an interrupted evaluation; started
    by torchrun or srun, each process takes its share of the pairs.
    """

    may_change = ("run", "data", "manifest", "preset", "env", "workers", "films")

    run: CliPositionalArg[Existing] = Field(
        description="run folder with the model, a released LeWM folder, or owner/name on the hub"
    )
    data: Source | None = Field(
        None, description="of a released LeWM: the data set it learned from, for the action scale"
    )
    manifest: Existing = Field(description="the task, as worldmodel manifest writes it")
    preset: Literal["small", "published"] = Field(
        "small",
        description="published: 300 samples, 30 iterations, 30 elites, execute 5, last-step cost, "
        "every action free",
    )
    device: str = _device()
    films: Natural = Field(3, description="successes and failures to show in motion")
    out: Path = Field(exclude=True, description="folder to write to")


class CompareSettings(Settings):
    """The paired difference of two results on one manifest, with an exact test.

    Where each pair was tried once, the test is McNemar's.
    """

    a: CliPositionalArg[Path] = Field(description="result.json, or the folder it lies in")
    b: CliPositionalArg[Path] = Field(description="another, on the same manifest")
    out: Path | None = Field(
        None, description="also write it to this JSON file, and a page with .html beside it"
    )

    @model_validator(mode="after")
    def _json(self) -> CompareSettings:
        if self.out is not None and self.out.suffix == ".html":
            raise ValueError(f"out must be a JSON file, beside which the page goes, got {self.out}")
        return self


class DemoSettings(Settings):
    """Learn a world model from pixels and plan with it, from nothing, in minutes.

    1. collect   a noisy walker explores two rooms with a door between them
    2. train     LeWorldModel: next-embedding error + weight × SIGReg, no decoder, no reward
    3. plan      in latent space, to goals it has never seen
    4. report    success against a random policy, probes, curves, a map and a film
    """

    examples = """\
examples:
  worldmodel demo                      the whole thing, into runs/demo
  worldmodel demo --seed 1 --out b     another seed, another folder
  worldmodel demo --steps 200          a quick, worse model
  worldmodel demo --ablate             also train without SIGReg, and compare
  worldmodel demo --resume             continue after Ctrl-C
"""
    may_change = ("device",)

    out: Path = Field(Path("runs/demo"), exclude=True, description="run folder to create")
    seed: Seed = Field(0, description="decides data, weights, pairs and plans")
    steps: Count = Field(600, description="training steps; fewer is quicker and worse")
    episodes: Count = Field(800, description="episodes collected for training")
    length: Count = Field(80, description="actions per episode")
    bump: Fraction = Field(0.4, description="how often a training walker ignores the wall")
    held_out: Count = Field(200, description="episodes collected for probes, starts and goals")
    pairs: Count = Field(200, description="start and goal pairs to try")
    offset: Count = Field(25, description="raw steps from a start to its goal in its episode")
    budget: Count = Field(50, description="raw steps the agent may take")
    frameskip: Count = Field(5, description="raw actions per block")
    image_size: Count = Field(64, description="side of a frame in pixels")
    dim: Count = Field(64, description="embedding width")
    batch_size: Count = Field(64, description="windows per training step")
    learning_rate: Positive = Field(1e-3, description="peak of the schedule")
    weight: Weight = Field(0.05, description="λ, weight of SIGReg; 0 leaves it out")
    warmup: Fraction = Field(0.1, description="fraction of the steps with a rising rate")
    num_proj: Annotated[int, Field(ge=1, le=2**20)] = Field(
        256, description="directions SIGReg looks along"
    )
    device: str = _device()
    ablate: bool = Field(
        False,
        exclude=True,
        description="also train with weight 0 and print both side by side; takes twice as long",
    )
    resume: bool = Field(False, exclude=True, description="continue the interrupted run in --out")
