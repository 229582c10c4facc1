"""Loads the images and masks of a graph for the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.comfyui.errors import meaningless, shown
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import FileInput, Sampling
from multimodal_gen.entrypoints.python.decoding import Mode, decode_picture
from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CHANNELS = {"red": 0, "green": 1, "blue": 2}
_HALF = 128


def load_pictures(
    sampling: Sampling, read: Callable[[str], bytes | None], multiple: int, max_pixels: int
) -> dict[str, Array]:
    """`image` [H, W, 3] and `mask` [H, W], both centre-cropped to sides that are multiples of
    `multiple`, as in ComfyUI. Slow. Raises InvalidInput."""
    if sampling.image is None:
        return {}

    def decoded(loaded: FileInput, mode: Mode) -> Array:
        data = read(loaded.file)
        if data is None:
            why = f"Invalid image file: {shown(loaded.file)}"
            raise meaningless(loaded.node, "image", why)
        try:
            return decode_picture(data, "image", mode, max_pixels=max_pixels)
        except InvalidRequest as error:
            raise meaningless(loaded.node, "image", error.message) from error

    image = decoded(sampling.image, "RGB")
    if min(image.shape[:2]) < multiple:
        why = f"must have sides of at least {multiple} pixels"
        raise meaningless(sampling.image.node, "image", why)
    if sampling.mask is None:
        return {"image": _cut(image, multiple)}
    mask = _mask(decoded(sampling.mask, "RGBA"), sampling.mask.channel, image.shape[:2])
    if sampling.mask.erases:
        image = image.copy()
        image[mask >= _HALF] = _HALF
    mask = _grown(mask, sampling.mask.grow)
    return {"image": _cut(image, multiple), "mask": _cut(mask, multiple)}


def _mask(rgba: Array, channel: str, size: tuple[int, ...]) -> Array:
    """White where the image changes: where it is transparent, or a channel is bright."""
    import numpy as np
    from PIL import Image

    index = _CHANNELS.get(channel)
    mask = 255 - rgba[..., 3] if index is None else rgba[..., index]
    if mask.shape != size:
        scaled = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        mask = np.asarray(scaled)
    return mask


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


def _cut(picture: Array, multiple: int) -> Array:
    import numpy as np

    for axis in (0, 1):
        side = picture.shape[axis]
        first, kept = side % multiple // 2, side // multiple * multiple
        picture = picture.take(range(first, first + kept), axis)
    return np.ascontiguousarray(picture)
