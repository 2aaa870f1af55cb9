"""Pictures as JPEG in an HDF5 file: the bytes of all, one after another, and a place for each.

`pixels` [R, 2] holds where the bytes of each row begin and how many they are, `pixels_jpeg` those
bytes; attributes of `pixels` say so. HDF5 has a type for rows of unequal length, but nobody may
read such a column while another process writes it.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodel._extras import need
from worldmodel.data._cloud import Place
from worldmodel.data.frames import Images, StoredFrames

__all__ = ["JPEGFrames", "Pictures", "encoded"]

_MODES = {1: "L", 3: "RGB"}  # by channels


class Pictures(NamedTuple):
    """Frames [L, H, W, C] as JPEG."""

    data: list[bytes]  #: of each frame
    shape: tuple[int, ...]  #: (H, W, C)


def encoded(frames: Images, quality: int) -> Pictures:
    """Frames [L, H, W, C] at a quality of 1…100, colours as fine as brightness.

    Raises: ValueError if they have neither one nor three channels.
    """
    if (channels := frames.shape[-1]) not in _MODES:
        raise ValueError(f"jpeg must be of frames with 1 or 3 channels, got {channels}")
    image, data = need("PIL.Image", "worldmodel", "writing JPEG"), []
    for frame in frames:
        content = io.BytesIO()
        picture = image.fromarray(np.ascontiguousarray(frame if channels == 3 else frame[..., 0]))
        picture.save(content, "JPEG", quality=quality, subsampling=0)
        data.append(content.getvalue())
    return Pictures(data, frames.shape[1:])


class JPEGFrames(StoredFrames):
    """Frames that are decoded as they are read.

    Args:
        path: of the file, for messages.
        opened: the column of bytes, opened in this process; must be picklable.
        shape: (H, W, C) of every frame.
        spans: [R, 2], first byte and number of bytes of each.
    """

    def __init__(
        self, path: Place, opened: Callable[[], Any], shape: Sequence[int], spans: NDArray[np.int64]
    ) -> None:
        super().__init__(len(spans), shape, channels_last=True)
        self._path, self._opened, self._spans = path, opened, spans

    def pictures(self, rows: NDArray[np.int64]) -> Pictures:
        """Rows [n] as they are stored."""
        column = self._own(self._opened)
        try:
            data = [column[a : a + num].tobytes() for a, num in self._spans[rows].tolist()]
        except (OSError, RuntimeError) as error:
            raise OSError(f"cannot read {self._path}: {error}") from error
        return Pictures(data, self._stored)

    def _read(self, rows: NDArray[np.int64]) -> Images:
        wanted, back = np.unique(rows, return_inverse=True)
        found = zip(wanted.tolist(), self.pictures(wanted).data, strict=True)
        return np.stack([self._decoded(row, data) for row, data in found])[back]

    def _decoded(self, row: int, data: bytes) -> Images:
        image, (H, W, C) = need("PIL.Image", "worldmodel", "reading JPEG"), self._stored
        try:
            with image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
                # Before it is decoded: a few bytes can claim to be a huge picture.
                if (picture.size, picture.mode) != ((W, H), _MODES[C]):
                    raise ValueError(f"{picture.mode} of {picture.size[0]} × {picture.size[1]}")
                return np.asarray(picture).reshape(H, W, C)
        except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
            what = f"its picture {row} must be JPEG, {_MODES[C]} of {W} × {H}"
            raise ValueError(f"{self._path} is damaged: {what}, got {error}") from error
