"""Loads the images and masks of a graph for the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.comfyui.errors import meaningless, shown
from multimodal_gen.entrypoints.http.comfyui.graph.image_steps import Size
from multimodal_gen.entrypoints.http.comfyui.graph.values import LoadedImage, LoadedMask
from multimodal_gen.entrypoints.python.decoding import (
    PictureMemory,
    count_until_freed,
    decode_picture,
    picture_memory,
)
from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Array = np.ndarray[Any, Any]

_CHANNELS = {"red": 0, "green": 1, "blue": 2}
_HALF = 128
_STEP_BYTES = 8
"""Memory per pixel of a step's result: RGBA, and a copy."""


class PictureLoader:
    """Reads files with `read`. Slow. Raises InvalidInput."""

    def __init__(self, read: Callable[[str], bytes | None], multiple: int, max_pixels: int) -> None:
        """Images are centre-cropped to sides that are multiples of `multiple`, as in ComfyUI."""
        self._read = read
        self._multiple = multiple
        self._max_pixels = max_pixels
        self._memory: PictureMemory | None = None

    def load(self, images: Mapping[str, LoadedImage], mask: LoadedMask | None) -> dict[str, Array]:
        """Images [H, W, 3] by their names, and the `mask` [H, W] of the first. Raises QueueFull if
        the images of other requests leave no memory for them."""
        loaded: dict[str, Array] = {}
        for name, image in images.items():
            with self._counting():
                found = self._load(name, image, mask if name == "image" else None)
            loaded |= {each: count_until_freed(pixels, pixels.nbytes) for each, pixels in found}
        return loaded

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the images between loading and the result."""
        counting = picture_memory.get()
        self._memory = None if counting is None else counting()
        try:
            yield
        finally:
            if self._memory is not None:
                self._memory.close()

    def _load(
        self, name: str, image: LoadedImage, mask: LoadedMask | None
    ) -> list[tuple[str, Array]]:
        import numpy as np

        pixels = np.asarray(self._image(image).convert("RGB"))
        if min(pixels.shape[:2]) < self._multiple:
            why = f"must have sides of at least {self._multiple} pixels"
            raise meaningless(image.node, "image", why)
        if mask is None:
            return [(name, self._cut(pixels))]
        white = self._mask(mask, pixels.shape[:2])
        if mask.erases:
            pixels = pixels.copy()
            pixels[white >= _HALF] = _HALF
        return [(name, self._cut(pixels)), ("mask", self._cut(_grown(white, mask.grow)))]

    def _image(self, image: LoadedImage) -> Image:
        """The image after its steps, in RGBA."""
        from PIL import Image

        data = self._read(image.file)
        if data is None:
            why = f"Invalid image file: {shown(image.file)}"
            raise meaningless(image.node, "image", why)
        try:
            pixels = decode_picture(data, "image", "RGBA", max_pixels=self._max_pixels)
        except InvalidRequest as error:
            raise meaningless(image.node, "image", error.message) from error
        loaded = Image.fromarray(pixels)
        for step in image.steps:
            self._check_size(image, step.size(loaded.size))
            loaded = step.apply(loaded)
        return loaded

    def _check_size(self, image: LoadedImage, size: Size) -> None:
        """Take memory for a result of this size."""
        width, height = size
        if width * height > self._max_pixels:
            why = f"must have at most {self._max_pixels} pixels, not {width}x{height}"
            raise meaningless(image.node, "image", why)
        if self._memory is not None:
            self._memory.take(_STEP_BYTES * width * height)

    def _mask(self, mask: LoadedMask, size: tuple[int, ...]) -> Array:
        """White where the image changes, [H, W]."""
        import numpy as np
        from PIL import Image

        loaded = self._image(mask.image)
        if mask.border is not None:
            self._check_size(mask.image, mask.border.size(loaded.size))
            white = np.asarray(mask.border.mask(loaded.size))
        else:
            rgba, index = np.asarray(loaded), _CHANNELS.get(mask.channel)
            white = 255 - rgba[..., 3] if index is None else rgba[..., index]
        if mask.inverted:
            white = 255 - white
        if white.shape != size:
            scaled = Image.fromarray(white).resize((size[1], size[0]), Image.Resampling.BILINEAR)
            white = np.asarray(scaled)
        return white

    def _cut(self, picture: Array) -> Array:
        import numpy as np

        for axis in (0, 1):
            side = picture.shape[axis]
            first, kept = side % self._multiple // 2, side // self._multiple * self._multiple
            picture = picture.take(range(first, first + kept), axis)
        return np.ascontiguousarray(picture)


def _grown(mask: Array, by: int) -> Array:
    """Maximum over the square of `by` pixels around each pixel."""
    import numpy as np

    for axis in (0, 1):
        half = min(by // 2, mask.shape[axis])
        padding = [(0, 0), (0, 0)]
        padding[axis] = half, half
        mask = _running_maximum(np.pad(mask, padding), 2 * half + 1, axis)
    return mask


def _running_maximum(values: Array, window: int, axis: int) -> Array:
    """Maximum of each `window` neighbours along an axis, by doubling."""
    import numpy as np

    values, covered = np.moveaxis(values, axis, 0), 1
    while covered < window:
        more = min(covered, window - covered)
        values = np.maximum(values[:-more], values[more:])
        covered += more
    return np.moveaxis(values, 0, axis)
