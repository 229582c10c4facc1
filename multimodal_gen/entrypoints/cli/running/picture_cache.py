"""Cache of a command's input images, from their check until they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.python.pictures import open_picture

if TYPE_CHECKING:
    import numpy as np

KEPT_BYTES = 2**30
"""Maximum bytes of cached pixels; other images are opened again when they are sent."""


class PictureCache:
    """Opens each file once, as long as all pixels fit in `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        self._free = KEPT_BYTES

    def open(self, field: str, path: str) -> np.ndarray[Any, Any]:
        """Open an image as `open_picture`, or return it from the cache."""
        if (kept := self._kept.get((field, path))) is not None:
            return kept
        pixels = open_picture(field, path)
        if pixels.nbytes <= self._free:
            self._free -= pixels.nbytes
            self._kept[field, path] = pixels
        return pixels
