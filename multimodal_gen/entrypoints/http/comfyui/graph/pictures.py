"""Loads the images and masks of a graph for the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.comfyui.errors import meaningless, shown
from multimodal_gen.entrypoints.http.comfyui.graph.values import LoadedImage, LoadedMask
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Array = np.ndarray[Any, Any]

_CHANNELS = {"red": 0, "green": 1, "blue": 2}
_HALF = 128


class PictureLoader:
    """Reads files with `read`. Slow. Raises InvalidInput."""

    def __init__(self, read: Callable[[str], bytes | None], multiple: int, max_pixels: int) -> None:
        """Images are centre-cropped to sides that are multiples of `multiple`, as in ComfyUI."""
        self._read = read
        self._multiple = multiple
        self._max_pixels = max_pixels

    def load(self, image: LoadedImage | None, mask: LoadedMask | None) -> dict[str, Array]:
        """`image` [H, W, 3] and `mask` [H, W], as far as they are given."""
        import numpy as np

        if image is None:
            return {}
        pixels = np.asarray(self._image(image).convert("RGB"))
        if min(pixels.shape[:2]) < self._multiple:
            why = f"must have sides of at least {self._multiple} pixels"
            raise meaningless(image.node, "image", why)
        if mask is None:
            return {"image": self._cut(pixels)}
        white = self._mask(mask, pixels.shape[:2])
        if mask.erases:
            pixels = pixels.copy()
            pixels[white >= _HALF] = _HALF
        return {"image": self._cut(pixels), "mask": self._cut(_grown(white, mask.grow))}

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
            width, height = step.size(loaded.size)
            if width * height > self._max_pixels:
                why = f"must have at most {self._max_pixels} pixels, not {width}x{height}"
                raise meaningless(image.node, "image", why)
            loaded = step.apply(loaded)
        return loaded

    def _mask(self, mask: LoadedMask, size: tuple[int, ...]) -> Array:
        """White where the image changes, [H, W]."""
        import numpy as np
        from PIL import Image

        loaded = self._image(mask.image)
        if mask.border is not None:
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

    half = by // 2
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = half, half
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(mask, padding), 2 * half + 1, axis=axis
        )
        mask = windows.max(axis=-1)
    return mask
