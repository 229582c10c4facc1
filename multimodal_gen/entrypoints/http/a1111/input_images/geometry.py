"""Sizes and regions of input images, as the web UI computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are outside."""

CROP, FILL = 1, 2
"""Values of `resize_mode`; all others stretch."""


def resized(image: Image, size: tuple[int, int], mode: int) -> Image:
    """Resize to (width, height): by cropping, by repeating the border, or by stretching."""
    import numpy as np
    from PIL import Image, ImageOps

    lanczos = Image.Resampling.LANCZOS
    if mode == CROP:
        return ImageOps.fit(image, size, lanczos)
    if mode != FILL:
        return image.resize(size, lanczos)
    inner = ImageOps.contain(image, size, lanczos)
    missing = [whole - side for whole, side in zip(size, inner.size, strict=True)]
    across, down = ((each // 2, each - each // 2) for each in missing)
    pixels = np.asarray(inner)
    return Image.fromarray(np.pad(pixels, (down, across, (0, 0))[: pixels.ndim], "edge"))


def masked_region(mask: Image, padding: int, size: tuple[int, int] | None) -> Box:
    """Region of a mask that is not black, widened by `padding` pixels and then to the shape of
    `size`, as far as the image goes. The whole image if all of it is black."""
    box = mask.getbbox()
    if box is None:
        return 0, 0, *mask.size
    left, right = _padded(box[0], box[2], padding, mask.width)
    top, bottom = _padded(box[1], box[3], padding, mask.height)
    if size is not None:
        width, height = size
        left, right = _widened(left, right, round((bottom - top) * width / height), mask.width)
        top, bottom = _widened(top, bottom, round((right - left) * height / width), mask.height)
    return left, top, right, bottom


def _padded(start: int, end: int, padding: int, limit: int) -> tuple[int, int]:
    return max(0, start - padding), min(limit, end + padding)


def _widened(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Extend start..end evenly to `length`, within 0..limit; a longer one is kept."""
    length = min(limit, max(length, end - start))
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length
