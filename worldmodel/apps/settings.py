"""What each command is told: one frozen record a command, the only place of a setting.

A field holds the name, default, help and range of a setting; `parsing.py` makes flags, help
and settings files of it. Nothing here imports torch, so `--help` and most mistakes are quick.
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
Preset = Literal["small", "lewm", "mlp"]
Augment = Literal["shift", "contrast", "brightness"]
Term = Literal["inverse", "rollout", "straight"]
Objective = Literal["lewm", "pldm", "gcbc", "proposals"]
Learner = Literal["policy", "mixture", "gcivl", "gciql", "hiql"]
Subgoals = Literal["none", "graph", "hiql"]
Proposer = Literal["policy", "recorded", "variants"]
BUILT_IN = "two-room"
_GUIDED = ("sources", "cloned", "distance", "subgoals", "check")  # settings of proposals alone


def _absolute(text: str) -> str:
    """A path as it reads from any folder; what is no path (the id of a data set) stays."""
    return os.path.abspath(text) if text != BUILT_IN and os.path.exists(text) else text  # noqa: PTH100, PTH110 - a link stays a link


Source = Annotated[str, AfterValidator(_absolute)]
Existing = Annotated[Path, AfterValidator(lambda path: Path(_absolute(str(path))))]
Part = Literal["encoder", "action_encoder", "predictor", "recipe"]
_DATA = "HDF5 file, LeRobot folder, Minari folder or id"
_WORLD = "two-room, push-t, reacher, cube, or a class of your own as package.module:Class"
_RUN = "run folder of demo or train, a released LeWM folder, or owner/name on the hub"
Device = Annotated[str, Field(description="cpu, cuda, cuda:1, mps, ...; auto: a GPU if any")]
_WORKERS = "processes that simulate and draw, not for two-room; none: the world's"
Simulators = Annotated[Workers | None, Field(description=_WORKERS)]
Packing = Literal["gzip", "lzf"] | None
Compression = Annotated[Packing, Field(description="smaller files that read far more slowly")]
Quality = Annotated[int, Field(ge=1, le=100)] | None
JPEG = Annotated[Quality, Field(description="frames as JPEG of quality 1…100, not exact")]
Column = Annotated[str | None, Field(description="column of the data; none: the format's usual")]
Resume = Annotated[bool, Field(description="continue the interrupted run in --out", exclude=True)]


def option(default: Any, about: str, **more: Any) -> Any:
    """A setting: its default, its help, and what else pydantic's Field takes."""
    return Field(default, description=about, **more)


class Settings(BaseModel):
    """What every command takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)
    may_change: ClassVar[tuple[str, ...]] = ()
    """Settings that may differ when a run is resumed: they decide no number."""
    config: Path | None = option(None, "YAML or JSON file; flags win over it", exclude=True)
    debug: bool = option(False, "show the traceback of an error", exclude=True)

    def told(self) -> str:
        """What decided an output that is a single file, as the file keeps it: JSON."""
        return self.model_dump_json(exclude={"out", "data", "workers", "episodes", "resume"})

    def common(self, kind: "type[Settings]") -> dict[str, Any]:
        """Values of the settings that another command has under the same names."""
        return self.model_dump(include=set(kind.model_fields))

    def changed(self, before: "Settings") -> list[str]:
        """Settings that differ from those of an earlier run and decide its numbers, in words."""
        then, now = before.model_dump(mode="json"), self.model_dump(mode="json")
        names = [n for n in now if now[n] != then[n] and n not in self.may_change]
        return [f"{name} {then[name]} → {now[name]}" for name in names]


class CollectSettings(Settings):
    """Let a scripted or random policy act, and write what it sees and does."""

    env: str = option("two-room", f"the world: {_WORLD}")
    policy: str | None = option(None, "who acts; none: the world's first policy")
    episodes: Count = Field(description="episodes the file shall hold")
    length: Count = option(100, "actions in an episode, one fewer than its frames")
    size: Count = option(64, "side of a frame in pixels")
    states_only: bool = option(False, "no pictures: train --render draws them from the states")
    seed: Seed = option(0, "decides starts, targets and noise")
    bump: Fraction = option(0.0, "how often two-room's or maze's expert ignores walls; demo: 0.4")
    out: Path = Field(description="HDF5 file to create")
    resume: bool = option(False, "continue --out if it exists, also to more episodes")
    workers: Simulators = None
    compression: Compression = None
    jpeg: JPEG = None

    @model_validator(mode="after")
    def _packed(self) -> "CollectSettings":
        if self.jpeg is not None and (self.states_only or self.compression is not None):
            raise ValueError("jpeg goes with neither states_only nor compression: it packs frames")
        return self


class _Columns(Settings):
    """Which columns of a data set are read."""

    pixels: Column = None
    action: Column = None
    state: list[str] | None = option(None, "columns of the states")


class InfoSettings(Settings):
    """Say which versions, device and extras are here, for a bug report."""

    device: Device = "auto"


class InspectSettings(_Columns):
    """Say what is in a data set, and draw a contact sheet of it."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    sheet: Path | None = option(None, "the contact sheet; none: DATA.sheet.png in this folder")


class ConvertSettings(_Columns):
    """Write pixels, actions and states of any data set we read as HDF5."""

    data: CliPositionalArg[Source] = Field(description=_DATA)
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count | None = option(None, "resize frames to this side; none: as they are")
    channels: str | None = option(None, "rgb: of grey, RGBA or stacked frames; or three as 3,4,5")
    integers: Literal["choices", "numbers"] = option("choices", "what whole numbers as actions are")
    shift: bool = option(False, "each action lies beside the frame it led to: move it one row up")
    compression: Compression = None
    jpeg: JPEG = None


class RenderSettings(Settings):
    """Draw the states of a collected file at another size."""

    data: CliPositionalArg[Existing] = Field(description="HDF5 file that collect wrote")
    out: CliPositionalArg[Path] = Field(description="HDF5 file to create")
    size: Count = Field(description="side of a frame in pixels")
    env: str | None = option(None, "the world if it is a class of your own; none: as the file says")
    workers: Simulators = None
    compression: Compression = None
    jpeg: JPEG = None


class Recipe(Settings):
    """What the training loop is told; the defaults are the published recipe (LeWM).

    Batch, rate and weight belong together, for the regularizer's strength grows with the batch.
    """

    steps: Count | None = option(None, "optimizer steps; none: 10 passes over the data")
    batch_size: Count = option(128, "windows per step, over all ranks")
    seed: Seed = option(3072, "of weights, split, batches, dropout and directions")
    learning_rate: Positive = option(5e-5, "peak of the schedule")
    weight: Weight = option(0.09, "λ of SIGReg; its effect grows with the batch; pldm: 1, gcbc: 0")
    weight_decay: Weight = option(1e-3, "of AdamW")
    clip: Positive = option(1.0, "largest norm of the gradient")
    warmup: Fraction = option(0.01, "fraction of the steps with a rising rate")
    num_proj: NumProj = option(1024, "directions SIGReg looks along")
    precision: Precision = option(
        "auto", "auto: bfloat16 on a GPU that has it; tf32: float32, rough products"
    )
    schedule_from: CliSuppress[Natural] = option(0, "first step of an extended run's schedule")


class TrainSettings(Recipe):
    """Train a world model on episodes of pixels and actions, and leave a run folder."""

    may_change = (
        "data", "workers", "device", "sharded", "accumulate", "wandb", "pixels", "action",
        "init_from",
    )  # fmt: skip

    out: Path = Field(exclude=True, description="the run folder")
    resume: Resume = False
    data: Source = Field(description=_DATA)
    pixels: Column = None
    action: Column = None
    world: str | None = option(None, "world of the data, for evaluate; none: as the file says")
    render: Count | None = option(None, "draw frames of this side from the states of the data")
    num_frames: Pair = option(4, "of a window, at most predictor.history + 1; gcbc: 6, with goals")
    frameskip: Count = option(5, "raw steps between two frames, whose actions make one block")
    held_out: Share = option(0.1, "fraction of the episodes kept out of training")
    preset: Preset = option("small", "model and defaults")
    init_from: Existing | None = option(None, "run whose weights it begins with (fine-tuning)")
    objective: Objective = option("lewm", "what is minimised; proposals: beside init-from's model")
    learner: Learner = option("gcivl", "of proposals: a policy, or a value and its policies")
    terms: dict[Term, Weight] = option({}, "weights of further terms of lewm, as terms.name=value")
    pooled: bool = option(False, "SIGReg sees all frames of a batch as one sample, not each step's")
    augment: dict[Augment, Weight] = option(
        {}, "augment.shift=4 pixels at most, augment.contrast=0.2, augment.brightness=0.1"
    )
    moving: Annotated[float, Field(ge=0, lt=1)] = option(
        0.0, "least share of windows in which something moves; the others are thinned out"
    )
    moving_states: list[Natural] | None = option(
        None, "state dims that tell what moves; none: all, or pixels where there are no states"
    )
    checkpoint_every: Count = option(1000, "steps between two checkpoints; the last two are kept")
    report_every: Count | None = option(None, "steps between rows of curves.csv; none: 200 rows")
    held_out_windows: Count = option(512, "of the held-out episodes, scored at every checkpoint")
    device: Device = "auto"
    workers: Workers = option(2, "processes that load data ahead; decides no number")
    minutes: Positive | None = option(None, "stop after this time, to be resumed", exclude=True)
    sharded: bool = option(False, "each process holds a part of the weights (FSDP2), not all")
    accumulate: Count = option(1, "parts in which a batch is embedded: less memory, more work")
    wandb: bool = option(False, "also log to Weights & Biases, if installed")
    model: dict[Part, dict[str, Any]] = option({}, "arguments of its parts, as part.name=value")

    @model_validator(mode="after")
    def _composed(self) -> "TrainSettings":
        if (self.terms or self.pooled) and self.objective != "lewm":
            raise ValueError(f"terms and pooled go with objective lewm, got {self.objective}")
        if self.augment.get("shift", 0) % 1:
            raise ValueError(f"augment.shift must be whole pixels, got {self.augment['shift']:g}")
        if (most := max(self.augment.get(k, 0) for k in ("contrast", "brightness"))) > 1:
            raise ValueError(f"augment.contrast and brightness must be at most 1, got {most:g}")
        if self.minutes and self.objective == "proposals":
            raise ValueError("minutes goes with objectives that can be resumed, got proposals")
        return self


class _Short(Settings):
    """What commands that train on their own share: the recipe for a CPU."""

    steps: Count = option(600, "training steps of a run; fewer is quicker and worse")
    batch_size: Count = option(64, "windows per step")
    learning_rate: Positive = option(1e-3, "peak of the schedule")
    warmup: Fraction = option(0.1, "fraction of the steps with a rising rate")
    num_proj: NumProj = option(256, "directions SIGReg looks along")
    frameskip: Count = option(5, "raw actions per block, from one frame to the next")
    seed: Seed = option(0, "decides data, split, weights and everything that is drawn")
    device: Device = "auto"
    resume: Resume = False


class TuneSettings(_Short):
    """Find λ, the weight of SIGReg, by bisection on its logarithm."""

    may_change = ("low", "high", "runs", "device")

    data: Source = option(BUILT_IN, f"{_DATA}, or the built-in world {BUILT_IN}")
    out: Path = option(Path("runs/tune"), "folder to create", exclude=True)
    low: Positive = option(1e-3, "smallest weight")
    high: Positive = option(1.0, "largest weight")
    runs: int = option(7, "short runs, ends included; one more halves the range", ge=3, le=1000)
    steps: Count = option(150, "training steps of each run")
    preset: Preset = option("small", "the model")
    precision: Precision = option("float32", "of the network, that of the long run")
    held_out: Share = option(0.2, "fraction of the episodes that judge")
    windows: Pair = option(1024, "held-out windows that judge, at most")

    @model_validator(mode="after")
    def _ordered(self) -> "TuneSettings":
        if self.low >= self.high:
            raise ValueError(f"low must be below high = {self.high:g}, got {self.low:g}")
        return self


class StudySettings(Settings):
    """Measure what a run has learned, on episodes it was not trained on."""

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, f"{_DATA}; none: fresh, or what the run kept apart")
    out: Path | None = option(None, "where to write; none: the run folder")
    episodes: Count = option(100, "episodes to measure, and as many again to fit probes on")
    steps: Count = option(400, "training steps of the decoder")
    seed: Seed = option(0, "of episodes, fits and intervals")
    force: bool = option(False, "replace an earlier study of the same run")
    device: Device = "auto"


class ViewSettings(Settings):
    """Write a page on which a run plans in the browser, and serve it on this machine."""

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, f"{_DATA}; none: fresh episodes of a world the page has")
    out: Path | None = Field(None, exclude=True, description="folder to write; none: RUN/view")
    runtime: Existing | None = option(None, "folder of onnxruntime-web; none: a cache, by npm")
    serve: bool = Field(True, exclude=True, description="only write the folder")
    open: bool = Field(False, exclude=True, description="open the page in a browser")
    port: int = Field(8734, ge=0, lt=65536, exclude=True, description="to serve at; 0: any")
    episodes: Annotated[int, Field(ge=8, le=_MOST)] = option(100, "episodes to draw the map of")
    pairs: Natural = option(50, "start and goal pairs that Python tries for comparison")
    seed: Seed = option(0, "of episodes and pairs")


class ManifestSettings(Settings):
    """Write down a task: starts, goals, budget, criterion, seeds and versions, with a hash."""

    env: str = Field(description=f"the world: {_WORLD}")
    pairs: Count = option(200, "how many")
    offset: Count = option(25, "steps from start to goal in the source episode")
    budget: Count = option(50, "steps allowed")
    seed: Seed = option(0, "of the draw")
    data: Source | None = option(None, f"episodes with states to draw from: {_DATA}")
    state: list[str] | None = option(None, "columns of --data that hold the state")
    unseen_by: Existing | None = option(None, "run whose training episodes are left out of --data")
    protocol: Protocol = option("held-out", "which pairs are drawn; docs/evaluate.md")
    out: Path = Field(description="file to write")

    @model_validator(mode="after")
    def _needs_data(self) -> "ManifestSettings":
        if self.data is None and (self.unseen_by or self.state):
            raise ValueError("unseen-by and state go with --data")
        return self


class PlannerSettings(Settings):
    """Which planner, with which settings.

    Each default spends 384 rollouts a decision, of which "gradient" also takes the gradient;
    "proposals" costs what a run's learner proposes, ten or so.
    """

    planner: Planner = option("cem", "who searches")
    samples: Count | None = option(None, "candidates; none: 64, gradient 16 starts, proposals 12")
    iterations: Count | None = option(None, "none: 6, gradient 24, proposals 1; more refine by cem")
    elites: Count = option(8, "of cem, icem and proposals; candidates that mppi averages")
    horizon: Count = option(5, "blocks planned ahead")
    execute: Count = option(1, "blocks done before the next plan")
    together: Count | None = option(16, "problems in one call of the model, for equal rounding")
    std: Positive = option(1.0, "spread of the first candidates")
    temperature: Positive = option(1.0, "of mppi, in units of the cost")
    rate: Positive = option(0.1, "step size of gradient")
    cost: Cost = option("nearest", "which predictions are compared with the goal")
    free: bool = option(False, "search every raw action of a block, not one held; proposals do")
    sources: list[Proposer] = option(["policy"], "of proposals: the learner's, recorded, varied")
    cloned: Existing | None = option(None, "of proposals: a gcbc run, whose block is one more")
    distance: Weight = option(0.0, "of proposals: weight of the learner's distance in the cost")
    subgoals: Subgoals = option("none", "of proposals: aim at recorded frames on the way, by whom")
    check: Weight = option(1.0, "of proposals: imagine this near the goal, in blocks of a value")
    dtype: Dtype = option("float32", "of the predictor while planning")
    compile: bool = option(False, "compile the predictor (torch.compile)")
    cuda_graph: bool = option(False, "record the cost as a CUDA graph; not with gradient")

    @property
    def budget(self) -> tuple[int, int]:
        """Candidates per iteration, and iterations; their product is the same for every default."""
        usual = {"gradient": (16, 24), "proposals": (12, 1)}.get(self.planner, (64, 6))
        return self.samples or usual[0], self.iterations or usual[1]

    def described(self) -> dict[str, str | int | float | bool | None]:
        """The planner's settings as results name them."""
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
            rule = "no distance, and a first source that is no variant"
            raise ValueError(f"check 0 takes {rule}: nothing is imagined")
        return self


class TrialSettings(PlannerSettings):
    """How a policy is tried on the pairs of a manifest."""

    batch_size: Count = option(64, "pairs side by side; changes no outcome")
    seeds: Count = option(1, "try every pair this often, with other seeds each time")
    protocol: Protocol = option("held-out", "what is allowed, and success; docs/evaluate.md")
    env: str | None = option(None, "a class of your own the manifest names, package.module:Class")
    workers: Simulators = None


class EvaluateSettings(TrialSettings):
    """Plan with a trained model on every pair of a manifest."""

    may_change = ("run", "data", "manifest", "preset", "env", "workers", "films")

    run: CliPositionalArg[Existing] = Field(description=_RUN)
    data: Source | None = option(None, "of a released LeWM: what it learned from, for its scale")
    manifest: Existing = Field(description="the task, as worldmodel manifest writes it")
    preset: Literal["small", "published"] = option("small", "the planner's budget and cost")
    keep_planner: bool = option(False, "plan this way with the run from now on", exclude=True)
    device: Device = "auto"
    films: Natural = option(3, "successes and failures to show in motion")
    out: Path = Field(exclude=True, description="folder to write to")


_SEVERAL = "of several training seeds a pattern in quotes: 'runs/a-*/cem'"


class CompareSettings(Settings):
    """The paired difference of two results, or sets of them, on one manifest."""

    a: CliPositionalArg[Path] = Field(description=f"result.json, or its folder; {_SEVERAL}")
    b: CliPositionalArg[Path] = Field(description="another, on the same manifest")
    out: Path | None = option(None, "also write this JSON file, and a page with .html beside it")

    @model_validator(mode="after")
    def _json(self) -> "CompareSettings":
        if self.out is not None and self.out.suffix == ".html":
            raise ValueError(f"out must be a JSON file, beside which the page goes, got {self.out}")
        return self


class DemoSettings(_Short):
    """Learn a world model from pixels and plan with it, from nothing, in minutes."""

    may_change = ("device",)

    out: Path = option(Path("runs/demo"), "run folder to create", exclude=True)
    episodes: Count = option(800, "episodes collected for training")
    length: Count = option(80, "actions per episode")
    bump: Fraction = option(0.4, "how often a training walker ignores the wall")
    held_out: Count = option(200, "episodes collected for probes, starts and goals")
    pairs: Count = option(200, "start and goal pairs to try")
    offset: Count = option(25, "raw steps from a start to its goal in its episode")
    budget: Count = option(50, "raw steps the agent may take")
    image_size: Count = option(64, "side of a frame in pixels")
    dim: Count = option(64, "embedding width")
    weight: Weight = option(0.05, "λ, weight of SIGReg; 0 leaves it out")
    ablate: bool = option(False, "also train with weight 0, and compare", exclude=True)
