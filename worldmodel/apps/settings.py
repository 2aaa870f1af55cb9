"""The settings of every command: one frozen record for each.

A field holds the name, default, help text and range of a setting. `parsing.py` makes flags, help
and settings files of the fields. This module does not import torch, so `--help` is quick.
"""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import CliPositionalArg, CliSuppress

_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MOST)]
Pair = Annotated[int, Field(ge=2, le=_MOST)]
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Workers = Annotated[int, Field(ge=0, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NumProj = Annotated[int, Field(ge=1, le=2**20)]
Share = Annotated[float, Field(gt=0, lt=1)]
Protocol = Literal[
    "held-out", "strict", "published", "historical", "clear-moderate", "clear-strict"
]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
Planner = Literal["cem", "icem", "mppi", "gradient", "predictive-sampling", "proposals"]
Dtype = Literal["float32", "bfloat16", "float16"]
Cost = Literal["last", "mean", "nearest"]
Metric = Literal["euclidean", "mahalanobis"]
Preset = Literal["small", "lewm", "mlp"]
Augment = Literal["shift", "contrast", "brightness"]
Term = Literal["inverse", "rollout", "straight"]
Objective = Literal["lewm", "pldm", "gcbc", "predictor", "proposals"]
Learner = Literal["policy", "mixture", "gcivl", "gciql", "hiql"]
Subgoals = Literal["none", "graph", "hiql"]
Proposer = Literal["policy", "recorded", "variants"]
BUILT_IN = "two-room"
PLANNER = "planner.json"  # in a run folder; what `evaluate --keep-planner` writes
_GUIDED = ("sources", "cloned", "distance", "subgoals", "check")  # only proposals has these


def _absolute(text: str) -> str:
    """An existing path made absolute; other text (the id of a data set) unchanged."""
    return os.path.abspath(text) if text != BUILT_IN and os.path.exists(text) else text  # noqa: PTH100, PTH110 - a link stays a link


Source = Annotated[str, AfterValidator(_absolute)]
Existing = Annotated[Path, AfterValidator(lambda path: Path(_absolute(str(path))))]
Part = Literal["encoder", "action_encoder", "predictor", "recipe"]
_DATA = "HDF5 file or LeRobot folder, also as s3://bucket/walks.h5; Minari folder or id"
_WORLD = (
    "two-room, maze, push-t, reacher, cube, an environment on MuJoCo as gymnasium:ID, or your own "
    "class as package.module:Class"
)
_SEVERAL = "for several training seeds a pattern in quotes: 'runs/a-*/cem'"
_RUN = "run folder of demo or train, a released LeWM folder, or owner/name on the hub"
Device = Annotated[str, Field(description="cpu, cuda, cuda:1, mps, ...; auto: a GPU if any")]
_WORKERS = "processes that simulate and draw, not for two-room; none: the world's default"
Simulators = Annotated[Workers | None, Field(description=_WORKERS)]
Packing = Literal["gzip", "lzf"] | None
Compression = Annotated[Packing, Field(description="compression: smaller, but slower to read")]
Quality = Annotated[int, Field(ge=1, le=100)] | None
JPEG = Annotated[Quality, Field(description="store frames as JPEG of this quality, 1…100; lossy")]
Column = Annotated[str | None, Field(description="column of the data; none: the format's default")]
Resume = Annotated[bool, Field(description="continue the interrupted run in --out", exclude=True)]


def option(default: Any, about: str, **more: Any) -> Any:
    """A setting: its default, its help text, and further arguments of pydantic's Field."""
    return Field(default, description=about, **more)


class Settings(BaseModel):
    """The settings that every command has."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)
    may_change: ClassVar[tuple[str, ...]] = ()
    """Settings that may differ when a run is resumed, because they change no result."""
    config: Path | None = option(None, "YAML or JSON file; flags override it", exclude=True)
    debug: bool = option(False, "show the traceback of an error", exclude=True)

    def told(self) -> str:
        """The settings that decided a single-file output, as the JSON that the file keeps."""
        return self.model_dump_json(exclude={"out", "data", "workers", "episodes", "resume"})

    def common(self, kind: "type[Settings]") -> dict[str, Any]:
        """The values of those settings that the other command has too."""
        return self.model_dump(include=set(kind.model_fields))

    def changed(self, before: "Settings") -> list[str]:
        """The settings that differ from an earlier run's and change its results, in words."""
        then, now = before.model_dump(mode="json"), self.model_dump(mode="json")
        names = [n for n in now if now[n] != then[n] and n not in self.may_change]
        return [f"{name} {then[name]} → {now[name]}" for name in names]


class CollectSettings(Settings):
    """Collect episodes of a scripted or random policy into an HDF5 file."""

    env: str = option("two-room", f"the world: {_WORLD}")
    policy: str | None = option(None, "the policy that acts; none: the world's first one")
    episodes: Count = Field(description="episodes in the file")
    length: Count = option(100, "actions in an episode, one fewer than its frames")
    size: Count = option(64, "side of a frame in pixels")
    states_only: bool = option(False, "store no frames; train --render draws them from the states")
    seed: Seed = option(0, "seed of starts, targets and noise")
    bump: Fraction = option(0.0, "how often the expert of two-room or maze ignores walls")
    out: Path = Field(description="HDF5 file to create")
    resume: bool = option(False, "continue --out if it exists; --episodes may be larger")
    workers: Simulators = None
    compression: Compression = None
    jpeg: JPEG = None

    @model_validator(mode="after")
    def _packed(self) -> "CollectSettings":
        if self.jpeg is not None and (self.states_only or self.compression is not None):
            raise ValueError("jpeg takes neither states_only nor compression")
        return self


class _Columns(Settings):
    """The columns that a command reads from a data set."""

    pixels: Column = None
    action: Column = None
    state: list[str] | None = option(None, "columns of the states")


class InfoSettings(Settings):
    """Print versions, device and installed extras, for a bug report."""

    device: Device = "auto"


class InspectSettings(_Columns):
    """Describe a data set, and draw a contact sheet of it."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    sheet: Path | None = option(None, "PNG file to write; none: DATA.sheet.png in this folder")


class ConvertSettings(_Columns):
    """Convert the pixels, actions and states of a data set to HDF5."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count | None = option(None, "resize frames to this side; none: keep their size")
    channels: str | None = option(None, "rgb, of grey, RGBA or stacked frames; or three as 3,4,5")
    integers: Literal["choices", "numbers"] = option("choices", "how to read whole-number actions")
    shift: bool = option(False, "move actions one row up, if each lies beside its next frame")
    compression: Compression = None
    jpeg: JPEG = None


class RenderSettings(Settings):
    """Draw the frames of a collected file again, at another size."""

    data: CliPositionalArg[Source] = Field(description="HDF5 file that collect wrote")
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count = Field(description="side of a frame in pixels")
    env: str | None = option(None, "the world, if it is your own class; none: the file names it")
    workers: Simulators = None
    compression: Compression = None
    jpeg: JPEG = None


class Recipe(Settings):
    """Settings of the training loop; the defaults are the published recipe (LeWM).

    Batch size, rate and weight belong together: the regularizer's effect grows with the batch.
    """

    steps: Count | None = option(None, "optimizer steps; none: 10 passes over the data")
    batch_size: Count = option(128, "windows per step, over all ranks")
    seed: Seed = option(3072, "seed of weights, split, batches, dropout and directions")
    learning_rate: Positive = option(5e-5, "peak learning rate")
    weight: Weight = option(0.09, "λ of SIGReg; its effect grows with the batch; pldm: 1, gcbc: 0")
    weight_decay: Weight = option(1e-3, "weight decay of AdamW")
    clip: Positive = option(1.0, "largest gradient norm")
    warmup: Fraction = option(0.01, "fraction of the steps in which the rate rises")
    num_proj: NumProj = option(1024, "directions that SIGReg projects onto")
    precision: Precision = option(
        "auto", "precision of the network; auto: bfloat16 on a GPU; tf32: float32, rounded products"
    )
    schedule_from: CliSuppress[Natural] = option(0, "first step of an extended run's schedule")


class TrainSettings(Recipe):
    """Train a world model on episodes of pixels and actions, and write a run folder."""

    may_change = (
        "data", "workers", "device", "sharded", "accumulate", "compile", "preload", "wandb",
        "pixels", "action", "init_from",
    )  # fmt: skip

    out: Path = Field(exclude=True, description="the run folder")
    resume: Resume = False
    data: Source = Field(description=_DATA)
    pixels: Column = None
    action: Column = None
    world: str | None = option(None, "world of the data, for evaluate; none: the file names it")
    render: Count | None = option(None, "draw frames from the states of the data, with this side")
    num_frames: Pair = option(4, "frames in a window; at most predictor.history + 1; gcbc: 6")
    frameskip: Count = option(5, "raw steps between two frames; their actions form one block")
    held_out: Share = option(0.1, "fraction of the episodes kept out of training")
    preset: Preset = option("small", "model, and defaults of the settings")
    init_from: Existing | None = option(None, "run whose weights training starts from")
    objective: Objective = option(
        "lewm", "the loss; predictor, proposals: of a predictor or a learner on a frozen encoder"
    )
    learner: Learner = option("gcivl", "proposals: a policy, or a value and its policies")
    terms: dict[Term, Weight] = option({}, "weights of further loss terms, as terms.name=value")
    pooled: bool = option(False, "SIGReg tests all frames of a batch as one sample, not by step")
    augment: dict[Augment, Weight] = option(
        {}, "largest augment.shift in pixels, augment.contrast and augment.brightness as fractions"
    )
    moving: Annotated[float, Field(ge=0, lt=1)] = option(
        0.0, "smallest share of windows with motion; windows without motion are dropped to reach it"
    )
    moving_states: list[Natural] | None = option(
        None, "state dims that define motion; none: all, or the pixels of data without states"
    )
    checkpoint_every: Count = option(1000, "steps between two checkpoints; the last two are kept")
    report_every: Count | None = option(None, "steps between rows of curves.csv; none: 200 rows")
    held_out_windows: Count = option(512, "held-out windows to score at every checkpoint")
    device: Device = "auto"
    workers: Workers = option(2, "processes that load data ahead; changes no result")
    minutes: Positive | None = option(None, "stop after this time; --resume goes on", exclude=True)
    sharded: bool = option(False, "each process holds a part of the weights (FSDP2)")
    accumulate: Count = option(1, "encode a batch in this many parts: less memory, more time")
    compile: bool = option(False, "compile the network by torch.compile; the first step is slow")
    preload: bool = option(False, "copy all training frames to the device first; no workers")
    wandb: bool = option(False, "also log to Weights & Biases, if installed")
    model: dict[Part, dict[str, Any]] = option({}, "arguments of model parts, as part.name=value")

    @model_validator(mode="after")
    def _composed(self) -> "TrainSettings":
        if (self.terms or self.pooled) and self.objective not in ("lewm", "predictor"):
            raise ValueError(f"terms and pooled need objective lewm, got {self.objective}")
        if self.objective == "predictor" and (self.sharded or any(self.augment.values())):
            raise ValueError("sharded and augment must be left out with objective predictor")
        if self.augment.get("shift", 0) % 1:
            raise ValueError(f"augment.shift must be whole pixels, got {self.augment['shift']:g}")
        if (most := max(self.augment.get(k, 0) for k in ("contrast", "brightness"))) > 1:
            raise ValueError(f"augment.contrast and brightness must be at most 1, got {most:g}")
        if self.minutes and self.objective == "proposals":
            raise ValueError("minutes needs an objective that can be resumed, got proposals")
        return self


class _Short(Settings):
    """The settings that demo and tune-lambda share: a recipe for a CPU."""

    steps: Count = option(600, "training steps of a run; fewer is quicker and worse")
    batch_size: Count = option(64, "windows per step")
    learning_rate: Positive = option(1e-3, "peak learning rate")
    warmup: Fraction = option(0.1, "fraction of the steps in which the rate rises")
    num_proj: NumProj = option(256, "directions that SIGReg projects onto")
    frameskip: Count = option(5, "raw steps between two frames; their actions form one block")
    seed: Seed = option(0, "seed of data, split, weights and every random draw")
    device: Device = "auto"
    resume: Resume = False


class TuneSettings(_Short):
    """Find λ, the weight of SIGReg, by bisection on its logarithm."""

    may_change = ("low", "high", "runs", "device")

    data: Source = option(BUILT_IN, f"{_DATA}, or the built-in world {BUILT_IN}")
    out: Path = option(Path("runs/tune"), "folder to create", exclude=True)
    low: Positive = option(1e-3, "smallest weight")
    high: Positive = option(1.0, "largest weight")
    runs: int = option(7, "short runs, both ends too; one more halves the range", ge=3, le=1000)
    steps: Count = option(150, "training steps of each run")
    preset: Preset = option("small", "the model")
    precision: Precision = option("float32", "precision of the network, as in the long run")
    held_out: Share = option(0.2, "fraction of the episodes to judge on")
    windows: Pair = option(1024, "held-out windows to judge on, at most")

    @model_validator(mode="after")
    def _ordered(self) -> "TuneSettings":
        if self.low >= self.high:
            raise ValueError(f"low must be below high = {self.high:g}, got {self.low:g}")
        return self


class StudySettings(Settings):
    """Measure what a run has learned, on episodes it was not trained on."""

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, f"{_DATA}; none: fresh or held-out episodes")
    out: Path | None = option(None, "folder to write; none: the run folder")
    episodes: Count = option(100, "episodes to measure, and as many again to fit the probes")
    steps: Count = option(400, "training steps of the decoder")
    seed: Seed = option(0, "seed of episodes, fits and intervals")
    force: bool = option(False, "replace an earlier study of the same run")
    device: Device = "auto"


class ViewSettings(Settings):
    """Write a page on which a run plans in the browser, and serve it on this machine."""

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, f"{_DATA}; none: fresh episodes, if the page has the world")
    out: Path | None = Field(None, exclude=True, description="folder to write; none: RUN/view")
    runtime: Existing | None = option(None, "folder of onnxruntime-web; none: npm's, cached")
    serve: bool = Field(True, exclude=True, description="only write the folder")
    open: bool = Field(False, exclude=True, description="open the page in a browser")
    port: int = Field(8734, ge=0, lt=65536, exclude=True, description="port to serve on; 0: any")
    episodes: Annotated[int, Field(ge=8, le=_MOST)] = option(100, "episodes for map and probe")
    pairs: Natural = option(50, "start and goal pairs that Python tries for comparison")
    seed: Seed = option(0, "seed of episodes and pairs")


class ManifestSettings(Settings):
    """Write a task to a file: starts, goals, budget, criterion, seeds, versions and a hash."""

    env: str = Field(description=f"the world: {_WORLD}")
    pairs: Count = option(200, "number of start and goal pairs")
    offset: Count = option(25, "steps from start to goal in the source episode")
    budget: Count = option(50, "steps that a policy may take")
    seed: Seed = option(0, "seed of the draw")
    data: Source | None = option(None, f"episodes with states to draw from: {_DATA}")
    state: list[str] | None = option(None, "columns of --data that hold the state")
    unseen_by: Existing | None = option(None, "run whose training episodes are left out of --data")
    protocol: Protocol = option("held-out", "how pairs are drawn; see docs/evaluate.md")
    out: Path = Field(description="file to write")

    @model_validator(mode="after")
    def _needs_data(self) -> "ManifestSettings":
        if self.data is None and (self.unseen_by or self.state):
            raise ValueError("unseen-by and state need --data")
        return self


class PlannerSettings(Settings):
    """The planner and its settings.

    By default a planner imagines 384 plans per decision; "gradient" also computes their gradients.
    "proposals" imagines only the plans that the run's learner proposes, about ten.
    """

    planner: Planner = option("cem", "planning method")
    samples: Count | None = option(None, "candidates; none: 64, gradient: 16 starts, proposals: 12")
    iterations: Count | None = option(None, "iterations; none: 6, gradient: 24, proposals: 1")
    elites: Count = option(8, "best candidates, to fit (cem, icem, proposals) or average (mppi)")
    horizon: Count = option(5, "blocks planned ahead")
    execute: Count = option(1, "blocks executed before the next plan")
    history: Count | None = option(
        None, "frames that a plan starts from; none: as many as the predictor takes"
    )
    together: Count | None = option(16, "pairs per call of the model; it changes rounding alone")
    std: Positive = option(1.0, "standard deviation of the first candidates")
    temperature: Positive = option(1.0, "temperature of mppi, in units of the cost")
    rate: Positive = option(0.1, "step size of gradient")
    cost: Cost = option("nearest", "which predictions the cost compares with the goal")
    metric: Metric = option("euclidean", "distance; mahalanobis: in units of a block's changes")
    free: bool = option(False, "search each raw action; else one action is held for a block")
    sources: list[Proposer] = option(["policy"], "proposals: which plans it imagines")
    cloned: Existing | None = option(None, "proposals: a gcbc run, for one more plan")
    distance: Weight = option(0.0, "proposals: weight of the learner's distance in the cost")
    subgoals: Subgoals = option("none", "proposals: how to choose sub-goals among recorded frames")
    check: Weight = option(1.0, "proposals: imagine plans within this many blocks of the goal")
    dtype: Dtype = option("float32", "dtype of the predictor while planning")
    compile: bool = option(False, "compile the predictor (torch.compile)")
    cuda_graph: bool = option(False, "record the cost as a CUDA graph; not with gradient")

    @property
    def budget(self) -> tuple[int, int]:
        """Candidates per iteration, and iterations."""
        usual = {"gradient": (16, 24), "proposals": (12, 1)}.get(self.planner, (64, 6))
        return self.samples or usual[0], self.iterations or usual[1]

    def described(self) -> dict[str, str | int | float | bool | None]:
        """The planner's settings under the names that results have."""
        values, (samples, iterations) = self.common(PlannerSettings), self.budget
        name, held = values.pop("planner"), not values.pop("free") and self.planner != "proposals"
        own = {"samples": samples, "iterations": iterations, "held": held}
        guided = {setting: values.pop(setting) for setting in _GUIDED}
        if name == "proposals":
            cloned = self.cloned and str(self.cloned)
            own |= guided | {"sources": ", ".join(self.sources), "cloned": cloned}
        return {"name": name, **values, **own}

    @model_validator(mode="after")
    def _fits(self) -> "PlannerSettings":
        if self._of_run():
            return self
        name, elites = self.planner, self.elites
        own = {"elites": ("cem", "icem", "mppi", "proposals"), "temperature": ("mppi",)}
        own |= {"rate": ("gradient",), **dict.fromkeys(_GUIDED, ("proposals",))}
        for setting, planners in own.items():
            given = getattr(self, setting) != type(self).model_fields[setting].default
            if given and name not in planners:
                known = f"a setting of {', '.join(planners)}"
                raise ValueError(f"{setting} is {known}, got it with planner {name}")
        fewest = {"icem": 2 * elites, "gradient": 1, "predictive-sampling": 2}.get(name, elites)
        if self.execute > (most := self.horizon):
            raise ValueError(f"execute must be at most horizon = {most}, got {self.execute}")
        if elites < 2 and name in ("cem", "icem", "proposals"):
            raise ValueError(f"elites must be at least 2 for {name}, got {elites}")
        if (samples := self.budget[0]) < fewest:
            words = f"for {name} with elites {elites}, got {samples}"
            raise ValueError(f"samples must be at least {fewest} {words}")
        if self.cuda_graph and name == "gradient":
            raise ValueError("cuda_graph records no gradients, got it with planner gradient")
        first = self.sources[0] if self.sources else "variants"
        if self.check == 0 and (self.distance or first == "variants"):
            rule = "distance 0 and a first source other than variants"
            raise ValueError(f"check 0 imagines nothing, so it needs {rule}")
        return self

    def _of_run(self) -> bool:
        """Whether the planner is that of a run, so that the settings are checked with it later."""
        return False


class TrialSettings(PlannerSettings):
    """How a policy is evaluated on the pairs of a manifest."""

    batch_size: Count = option(64, "pairs simulated at once; changes no outcome")
    seeds: Count = option(1, "attempts per pair, each with another seed")
    protocol: Protocol = option("held-out", "rules of the evaluation; see docs/evaluate.md")
    env: str | None = option(None, "your own world class, as the manifest names it")
    workers: Simulators = None


class EvaluateSettings(TrialSettings):
    """Plan with a trained model on every pair of a manifest."""

    may_change = ("run", "data", "manifest", "preset", "env", "workers", "films")

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, "data that a released LeWM was trained on")
    manifest: Existing = Field(description="task file of worldmodel manifest")
    preset: Literal["small", "published"] = option("small", "the planner's budget and cost")
    keep_planner: bool = option(False, "make this planner the run's default", exclude=True)
    device: Device = "auto"
    films: Natural = option(3, "successes and failures to show in the videos")
    out: Path = Field(exclude=True, description="folder to write")

    def _of_run(self) -> bool:
        chosen = {"planner", "preset"} & self.model_fields_set
        return not chosen and (Path(self.run) / PLANNER).is_file()


class CompareSettings(Settings):
    """Compare two results, or two sets of results, pair by pair on one manifest."""

    a: CliPositionalArg[Path] = Field(description=f"result.json, or its folder; {_SEVERAL}")
    b: CliPositionalArg[Path] = Field(description="the other, on the same manifest")
    out: Path | None = option(None, "also write this JSON file, and a page (.html) beside it")

    @model_validator(mode="after")
    def _json(self) -> "CompareSettings":
        if self.out is not None and self.out.suffix == ".html":
            raise ValueError(f"out must be a JSON file (the page goes beside it), got {self.out}")
        return self


class DemoSettings(_Short):
    """Collect data, train a world model on pixels and plan with it, in minutes."""

    may_change = ("device",)

    out: Path = option(Path("runs/demo"), "run folder to create", exclude=True)
    episodes: Count = option(800, "episodes collected for training")
    length: Count = option(80, "actions per episode")
    bump: Fraction = option(0.4, "how often a training walker walks into the wall")
    held_out: Count = option(200, "episodes collected for probes, starts and goals")
    pairs: Count = option(200, "start and goal pairs to try")
    offset: Count = option(25, "raw steps from start to goal in the source episode")
    budget: Count = option(50, "raw steps the agent may take")
    image_size: Count = option(64, "side of a frame in pixels")
    dim: Count = option(64, "embedding width")
    weight: Weight = option(0.05, "λ, weight of SIGReg; 0 leaves it out")
    ablate: bool = option(False, "also train with weight 0, and compare", exclude=True)
