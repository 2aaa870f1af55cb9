"""The training loop: two losses, AdamW, warm-up and cosine schedule, states to resume from."""

import json
import math
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sigreg import SIGReg
from worldmodel._files import write_atomically
from worldmodel.apps.machine import precision_of
from worldmodel.apps.ranks import ALONE, Ranks, blocks, part, shared, whole
from worldmodel.apps.settings import Recipe
from worldmodel.apps.train.augment import augmented, draws
from worldmodel.checkpoint import as_bytes, notes_of, read_weights
from worldmodel.contract import Parted
from worldmodel.data import BatchOrder, Windows, loader
from worldmodel.loss import jepa_loss
from worldmodel.records import Batch, Losses, named

_FORMAT = 2  # of a training state
_UNSEEN = 100  # most steps between two checks for values that are not finite

# (model, batch, regularizer, weight) -> Losses, as `jepa_loss`.
Objective = Callable[[Any, Batch, Any, float], Losses]


class WorkerEndedError(OSError):
    """A worker process that loads batches was killed."""


class NonFiniteError(FloatingPointError):
    """A loss, or the data behind it, was NaN or infinite; the message says which and where."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step: a linear warm-up from `schedule_from`, then a cosine to 0."""
    assert recipe.steps is not None
    steps, now = recipe.steps - recipe.schedule_from, step - recipe.schedule_from
    warm = max(round(recipe.warmup * steps), 1)
    if now < warm:
        return recipe.learning_rate * (now + 1) / warm
    along = (now - warm) / max(steps - warm, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * along))


def fuses(device: torch.device) -> bool:
    """Whether AdamW has a fused kernel there, which can skip a step without the host."""
    return device.type == "cuda"


class Training:
    """A model in training: it takes one step at a time, and saves and restores its state.

    Batches and the learning rate are functions of (seed, step), so the state is model, optimizer,
    regularizer, random state and step. `step` is the number of optimizer steps taken, of `steps`.
    With fused AdamW (on a GPU) no step waits for the device: AdamW skips a step that is not finite,
    and all later ones, until `settle` checks. Each of several ranks computes a part of the batch;
    gradients are averaged. With batch statistics (`ranks.synchronise`) and SIGReg over all ranks
    they equal those of one process. Dropout masks depend on (seed, step, rank).

    Args:
        model: what `objective` takes; trained in place, on the device where it is.
        recipe: settings of the loop, `steps` decided.
        regularizer: the objective's third argument; None: the recipe's SIGReg. It is trained too.
        workers: processes that load batches ahead; their number does not change the batches.
        sharded: each rank holds a part of every weight and moment (FSDP2), not all (DDP).
        augment: largest shift and change of colour of a window, by name; see `augmented`.
        accumulate: parts in which the encoder embeds a batch; losses are of the whole batch.
        compile: send the network through torch.compile; see `compiled`.
    Raises: ValueError if windows, ranks or parts do not fit the batch, or `steps` is not decided;
        TypeError if the encoder is not `Parted` and `accumulate` is above 1.
    """

    def __init__(
        self, model: nn.Module, windows: Windows, recipe: Recipe, *,
        objective: Objective = jepa_loss, regularizer: nn.Module | None = None, workers: int = 0,
        ranks: Ranks = ALONE, sharded: bool = False, augment: Mapping[Any, float] | None = None,
        accumulate: int = 1, compile: bool = False,
    ) -> None:  # fmt: skip
        self.device = next(model.parameters()).device
        precision = precision_of(recipe.precision, self.device.type)
        if (steps := recipe.steps) is None:
            raise ValueError("steps must be a number here, got none")
        if accumulate > 1:
            _embed_in_parts(model, accumulate, recipe.batch_size // ranks.size)
        self.compiled = compile
        if compile:
            compiled(model)
        self.recipe = recipe = recipe.model_copy(update={"precision": precision})
        self.model: Any = model
        self.windows, self.objective = windows, objective
        self.workers, self.ranks, self.sharded = workers, ranks, sharded and ranks.size > 1
        self.augment = {kind: most for kind, most in (augment or {}).items() if most}
        self.step, self.steps = 0, steps
        self.order = BatchOrder(
            len(windows), recipe.batch_size, seed=recipe.seed, stop=self.steps, rank=ranks.rank,
            ranks=ranks.size,
        )  # fmt: skip
        self.regularizer = regularizer or SIGReg(num_proj=recipe.num_proj, seed=recipe.seed)
        self.regularizer.to(self.device)
        # Model and regularizer: the latter may have weights, as PLDM's inverse dynamics.
        self.both = _Pass(self)
        self._pass = shared(self.both, ranks, self.sharded) if ranks.size > 1 else self.both
        self.parameters = list(self.both.parameters())
        self.fused = fuses(self.device) and not self.sharded
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
            fused=self.fused or None,
        )  # fmt: skip
        # Of the steps since the last check: number and random state of each, how many are finite.
        self._unseen: list[tuple[int, dict[str, Tensor]]] = []
        self._good = torch.zeros((), dtype=torch.int64, device=self.device)
        # Total, prediction, regularizer and norm of the last step, or of the first bad one.
        self._last = torch.full((4,), math.nan, device=self.device)
        self.bad = torch.zeros((), dtype=torch.bool, device=self.device)

    def run(self) -> Generator[Losses, None, None]:
        """Train to the last step, and yield the losses of each; `step` counts the steps.

        The state is complete between two steps: save or stop there.

        Raises: NonFiniteError if a loss or gradient is not finite; the state stays as before it.
        """
        self.model.train()
        batches, products = self._batches(), torch.backends.cuda.matmul
        before = products.allow_tf32
        products.allow_tf32 = before or self.recipe.precision == "tf32"
        try:
            while self.step < self.steps:
                losses = self._advance(next(batches))
                self.step += 1
                if self.step == self.steps or len(self._unseen) == _UNSEEN:
                    self.settle()
                yield losses
        finally:
            batches.close()
            products.allow_tf32 = before

    @property
    def gradient_norm(self) -> float:
        """Of the last step, before it was clipped; NaN before the first."""
        return float(self._last[3])

    def settle(self, batch: Batch | None = None) -> None:
        """Check that all steps since the last check were finite; this waits for the device.

        `save` calls it. `batch` is that of the present step, if the check is within a step.

        Raises: NonFiniteError; the state is that before the first step that was not finite.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        good = int(self._good)
        self._good.zero_()
        if good == len(unseen):
            return
        self.step, random = unseen[good]
        self._set_random(random)
        self.optimizer.zero_grad(set_to_none=True)
        self.bad.zero_()
        raise NonFiniteError(
            self._diagnose(batch or self.windows.batch(self.order.batch(self.step)))
        )

    def losses(self, batch: Batch) -> Losses:
        """The losses of a batch on any device, in the precision of the run."""
        return self.both(*batch)

    def precision(self) -> torch.autocast:
        """A context in which the network computes in the precision of training."""
        low = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    def _batches(self) -> Generator[Batch, None, None]:
        if self.workers:
            self.order.start, pin = self.step, self.device.type == "cuda"
            fetched = iter(loader(self.windows, self.order, workers=self.workers, pin_memory=pin))
            if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
                # The next fetch notices that a worker died. torch's own handler of this signal
                # would raise in the middle of a step.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                yield from fetched
            except (RuntimeError, ConnectionError, EOFError) as error:
                # An error that a worker itself raises has another message.
                if isinstance(error, RuntimeError) and "worker (pid" not in str(error):
                    raise
                told = "a process that loads data was killed, perhaps for memory; see --workers"
                raise WorkerEndedError(f"{told}: {error}") from error
        while True:
            yield self.windows.batch(self.order.batch(self.step))

    def _advance(self, batch: Batch) -> Losses:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step)
        # The state that a forward pass changes.
        before, random = [buffer.clone() for buffer in self.both.buffers()], self._random()
        if self.ranks.size > 1:
            seed = (recipe.seed * 1_000_003 + self.step) * 65_537 + self.ranks.rank
            torch.manual_seed(seed % 2**63)
        self.optimizer.zero_grad(set_to_none=True)
        losses: Losses = self._pass(*self._varied(batch))
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        # Averaged over the ranks, the gradient is finite on all of them or on none.
        told = torch.stack([losses.total.detach(), *losses[1:3], whole(norm)])
        self._last = torch.where(self.bad, self._last.to(told), told)
        self.bad = ~(self._last[0] + self._last[3]).isfinite()
        self._good += ~self.bad
        self._unseen.append((self.step, random))
        for buffer, value in zip(self.both.buffers(), before, strict=True):
            buffer.copy_(torch.where(self.bad, value, buffer))
        if self.fused:
            self.optimizer.found_inf = self.bad.float()  # type: ignore[attr-defined]
        else:
            self.settle(batch)
        self.optimizer.step()
        return losses

    def _varied(self, batch: Batch) -> Batch:
        if not self.augment:
            return batch
        frames, actions = batch.to(self.device)
        share, size = self.ranks.rank * len(actions), self.recipe.batch_size
        chance = draws(self.recipe.seed, self.step, size)[share : share + len(actions)]
        return Batch(augmented(frames, self.augment, chance), actions)

    def _random(self) -> dict[str, Tensor]:
        own = {"random": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return own

    def _set_random(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random.cuda" in state:
            torch.cuda.set_rng_state(state["random.cuda"], self.device)

    def _diagnose(self, batch: Batch) -> str:
        def bad(values: Mapping[str, Tensor]) -> str:
            return " and ".join(k for k, v in values.items() if not bool(v.isfinite().all()))

        total, prediction, regularization, _ = self._last
        terms = {"prediction loss": prediction, "SIGReg": regularization}
        what = "the gradient" if bool(total.isfinite()) else bad(terms) or "the total loss"
        where, source = "", "its data are finite, so the weights have diverged"
        if self.ranks.size > 1:
            where, source = f" of rank {self.ranks.rank}", "this rank's data are finite: unless "
            source += "another rank's are not, the weights have diverged"
        source += ": lower learning_rate or weight"
        if dirty := bad({**named(batch.frames, "frames"), "actions": batch.actions}):
            source = f"its {dirty} hold NaN or inf"
        return (
            f"training stopped at step {self.step + 1} of {self.steps}: "
            f"{what} is not finite on batch {self.step} "
            f"(windows {self.order.batch(self.step)[:4].tolist()}…{where}); {source}"
        )

    def save(self, path: Path, also: Mapping[str, Tensor] | None = None) -> None:
        """Write the state and the caller's tensors; every rank must call it, rank 0 writes.

        Raises: NonFiniteError before anything is written, as `settle`.
        """
        self.settle()
        tensors: dict[str, Tensor] = dict(self.both.state_dict())
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        tensors = {k: whole(v) for k, v in tensors.items()}
        tensors |= {f"also.{k}": v for k, v in (also or {}).items()}
        if self.ranks.first:
            write_state(path, tensors | self._random(), self._words() | {"step": str(self.step)})

    def restore(self, path: Path) -> dict[str, Tensor]:
        """Continue from a file that `save` wrote with the same recipe, or at a shorter one's end.

        Returns: the `also` of `save`.
        Raises: as `read_state`; ValueError if it is of another recipe or of another model.
        """
        tensors, words = read_state(path)
        told, mine = words.pop("step", "0"), self._words()
        step = int(told) if told.isdecimal() and len(told) < 19 else -1
        if not 0 <= step <= int(mine["steps"]):
            rule = f"a step in 0…{mine['steps']}, got {told[:30]}"
            raise DamagedStateError(f"{path} is no training state: it must have {rule}")
        if self.recipe.schedule_from == step and words.get("steps", "0") == str(step):
            # The schedule of the file is over, and this one begins.
            words |= {"steps": mine["steps"], "schedule_from": mine["schedule_from"]}
        words.setdefault("schedule_from", "0")
        if changed := [f"{k} {words.get(k)} → {v}" for k, v in mine.items() if words.get(k) != v]:
            rule = f"keep the settings in {path}"
            raise ValueError(f"a resumed run must {rule}, got {', '.join(changed)}")

        def below(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        own, state = self.both.state_dict(), self.optimizer.state_dict()
        learned = {k: v for k, v in tensors.items() if k.startswith(("model.", "regularizer."))}
        learned = {k: part(v, own[k]) if k in own else v for k, v in learned.items()}
        state["state"] = {
            i: {k: part(v, ours) for k, v in below(f"optimizer.{i}.").items()}
            for i, ours in enumerate(self.parameters)
        }
        try:
            self.both.load_state_dict(learned)
        except RuntimeError as error:
            raise ValueError(f"{path} is of another model: {error}") from error
        self.optimizer.load_state_dict(state)
        self._set_random(tensors)
        self.step = step
        return below("also.")

    def _words(self) -> dict[str, str]:
        """The settings that a state must share to be continued."""
        names = Recipe.model_fields.keys() - {"config", "debug"}
        return {name: str(getattr(self.recipe, name)) for name in sorted(names)}


class _Pass(nn.Module):
    """One forward pass as a module, so that DDP and FSDP2 wrap all parameters in use."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.model, self.regularizer, self._of = training.model, training.regularizer, training

    def forward(self, frames: Tensor, actions: Tensor) -> Losses:
        run, batch = self._of, Batch(frames, actions).to(self._of.device)
        with run.precision():
            return run.objective(self.model, batch, self.regularizer, run.recipe.weight)


def _embed_in_parts(model: Any, parts: int, windows: int) -> None:
    if parts > windows:
        rule = f"at most the {windows} windows of a step in each process"
        raise ValueError(f"accumulate must be {rule}, got {parts}")
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, Parted):
        kind = type(encoder).__name__
        raise TypeError(f"accumulate needs an encoder that is contract.Parted, got {kind}")
    encoder.parts = parts


def compiled(model: nn.Module) -> None:
    """Compile the parts of a model in place, a part with transformer blocks block by block.

    Blocks of one shape share their code. Names of the weights stay, and dropout draws the same
    masks. Losses and regularizers run as they are.

    Raises: ValueError if torch cannot compile for the model's device.
    """
    # Graphs are small, and the optimizer of DDP cannot split those that compute parts again.
    torch._dynamo.config.optimize_ddp = False
    # The random numbers of a network that is not compiled.
    options: dict[str, Any] = {"fallback_random": True}
    try:
        trial = torch.compile(lambda x: x.sin() + 1, options=options)
        trial(torch.zeros(2, device=next(model.parameters()).device))
    except (RuntimeError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        rule = "a compiler: gcc, g++ or clang++ on a CPU, and triton on a GPU"
        raise ValueError(f"compile needs {rule}; torch said: {why}") from error
    for child in model.children():
        for piece in blocks(child) or [child]:
            piece.compile(dynamic=False, options=options)


class DamagedStateError(ValueError):
    """A checkpoint is damaged; the message names the file."""


def write_state(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> None:
    """Write tensors and words as one safetensors file, whole or not at all; OSError names it."""
    # The words are a tensor, so that the file's digest covers them.
    told = torch.frombuffer(bytearray(json.dumps(dict(words)).encode()), dtype=torch.uint8)
    write_atomically(path, as_bytes({**tensors, "words": told}, {"format": str(_FORMAT)})[0])


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_state` wrote.

    Raises: FileNotFoundError; DamagedStateError if a bit differs; ValueError for another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no training state to resume from at {path}")
    version = notes_of(path).get("format", "")
    if version.isdecimal() and int(version) != _FORMAT:
        other = "newer" if int(version) > _FORMAT else "older"
        rule = f"{other} than {_FORMAT}, the one this version reads"
        raise ValueError(f"{path} has format {version}, {rule}: use the version that wrote it")
    try:
        tensors = read_weights(path)
        words = json.loads(bytes(tensors.pop("words").tolist()))
        if not isinstance(words, dict) or not all(isinstance(w, str) for w in words.values()):
            raise ValueError("its words must be a table of texts")
        return tensors, words
    except (ValueError, KeyError, OSError, RecursionError) as error:
        raise DamagedStateError(f"{path} is no training state: {error}") from error
