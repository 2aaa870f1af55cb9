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


class Checkpoints:
    """The training states of a run folder, named after their step.

    A new one is whole on the disk before an old one goes, so that at every moment the last two
    finished ones are there: whatever kills the run costs the steps since the last of them.

    Args:
        folder: made with the first checkpoint.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Newest first."""
        found = self.folder.glob("step-*.safetensors")
        return sorted(found, key=lambda path: path.name, reverse=True)

    def write(self, training: Training[Any], also: Mapping[str, Tensor] | None = None) -> Path:
        """Add the present state and let the oldest go; every rank must call it.

        Args:
            training: to be kept.
            also: as `Training.save` takes it.
        Returns: the file.
        Raises: OSError naming the file if it cannot be written; the older ones stay.
        """
        if training.ranks.first:
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{training.step:09d}.safetensors"
        training.save(path, also)
        for old in self.paths()[self.keep :] if training.ranks.first else ():
            old.unlink(missing_ok=True)
        return path

    def restore(self, training: Training[Any]) -> dict[str, Tensor] | None:
        """Continue from the newest checkpoint that is whole; say so if that is not the newest.

        Args:
            training: with the settings and the model that the checkpoints were written with.
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
