"""Checkpoints of a run: the last two kept, a damaged one stepped over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from worldmodel.apps.progress import say
from worldmodel.apps.train.loop import Training
from worldmodel.apps.train.state import DamagedStateError

__all__ = ["Checkpoints"]

_KEEP = 2


class Checkpoints:
    """The training states of a run folder, named after their step.

    A new one is whole on the disk before an old one goes, so that at every moment the last two
    finished ones are there: whatever kills the run costs the steps since the last of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def write(self, training: Training[Any], also: Mapping[str, Tensor] | None = None) -> None:
        """Add the present state and what belongs to it; every rank must call it.

        Raises: OSError naming the file if it cannot be written; the older ones stay.
        """
        if training.ranks.first:
            self.folder.mkdir(parents=True, exist_ok=True)
        training.save(self.folder / f"step-{training.step:09d}.safetensors", also)
        for old in self.paths()[_KEEP:] if training.ranks.first else ():
            old.unlink(missing_ok=True)

    def restore(self, training: Training[Any]) -> dict[str, Tensor] | None:
        """Continue from the newest checkpoint that is whole; say so if that is not the newest.

        Returns: what `write` was given as `also`, or None if there is no checkpoint at all.
        Raises: DamagedStateError if there are checkpoints and none is whole; ValueError if one is
            of other settings or of another model.
        """
        damaged: list[str] = []
        for path in self.paths():
            try:
                also = training.restore(path)
            except DamagedStateError as error:
                damaged.append(str(error))
                continue
            for sentence in damaged if training.ranks.first else ():
                say(f"{sentence}; continued from the one before, {path.name}")
            return also
        if damaged:
            raise DamagedStateError(
                f"no checkpoint in {self.folder} can be read: {'; '.join(damaged)}"
            )
        return None
