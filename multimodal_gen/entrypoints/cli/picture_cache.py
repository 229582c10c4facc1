"""Input pictures that a command opened, kept from the check until they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.python.pictures import open_picture

if TYPE_CHECKING:
    import numpy as np

KEPT_BYTES = 2**30
"""Pixels that are kept; pictures beyond them are opened again when their turn comes."""


class PictureCache:
    """Opens each file once, as long as the pixels of all of them fit in `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        self._free = KEPT_BYTES

    def open(self, name: str, path: str) -> np.ndarray[Any, Any]:
        """As `open_picture`."""
        if (kept := self._kept.get((name, path))) is not None:
            return kept
        pixels = open_picture(name, path)
        if pixels.nbytes <= self._free:
            self._free -= pixels.nbytes
            self._kept[name, path] = pixels
        return pixels
