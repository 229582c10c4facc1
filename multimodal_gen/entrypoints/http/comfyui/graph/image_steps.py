"""Steps between loading an image and encoding it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image, Resampling

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
_NAMES = ("NEAREST", "BILINEAR", "BOX", "BICUBIC", "LANCZOS")
_GREY = (128, 128, 128, 0)

Size = tuple[int, int]
"""Width and height in pixels."""


class ImageStep(Protocol):
    """One step."""

    def size(self, before: Size) -> Size:
        """Size of the result, known before any pixel is computed."""
        ...

    def apply(self, image: Image) -> Image: ...


@dataclass(frozen=True)
class ScaleStep:
    """Scales to a size, which may be derived from the image's; `centre` crops to its shape."""

    method: str
    width: int = 0
    height: int = 0
    """0: in proportion to the other side."""
    centre: bool = False
    factor: float | None = None
    megapixels: float | None = None
    longest: int | None = None

    def size(self, before: Size) -> Size:
        factor = self._factor(*before)
        if factor is None:
            return _sides(self.width, self.height, before)
        return max(1, round(before[0] * factor)), max(1, round(before[1] * factor))

    def apply(self, image: Image) -> Image:
        wanted = self.size(image.size)
        box = _centre(image.size, wanted) if self.centre else None
        return image.resize(wanted, _resampling(self.method), box)

    def _factor(self, width: int, height: int) -> float | None:
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 2**20 / (width * height))
        return self.longest / max(width, height) if self.longest is not None else self.factor


@dataclass(frozen=True)
class CropStep:
    x: int
    y: int
    width: int
    height: int

    def size(self, before: Size) -> Size:
        left, top, right, bottom = self._box(before)
        return right - left, bottom - top

    def apply(self, image: Image) -> Image:
        return image.crop(self._box(image.size))

    def _box(self, size: Size) -> tuple[int, int, int, int]:
        x, y = min(self.x, size[0] - 1), min(self.y, size[1] - 1)
        return x, y, min(x + self.width, size[0]), min(y + self.height, size[1])


@dataclass(frozen=True)
class PadStep:
    """Adds a grey border, which is transparent; its inner edge is soft over `feathering` pixels."""

    left: int
    top: int
    right: int
    bottom: int
    feathering: int = 0

    def size(self, before: Size) -> Size:
        return before[0] + self.left + self.right, before[1] + self.top + self.bottom

    def apply(self, image: Image) -> Image:
        from PIL import Image

        padded = Image.new("RGBA", self.size(image.size), _GREY)
        padded.paste(image.convert("RGB"), (self.left, self.top))
        return padded

    def mask(self, size: Size) -> Image:
        """White in the border of an image of this size, and grey towards it."""
        import numpy as np
        from PIL import Image

        width, height = size
        whole = np.full(self.size(size)[::-1], 255, np.uint8)
        feathering = self.feathering if 2 * self.feathering < min(size) else 0
        rows = _edge(height, self.top, self.bottom, feathering)
        columns = _edge(width, self.left, self.right, feathering)
        top, left = self.top, self.left
        # The nearest side determines the value, which falls with the distance.
        whole[top : top + height, left : left + width] = np.maximum(rows[:, None], columns)
        return Image.fromarray(whole)


def _edge(length: int, before: int, after: int, feathering: int) -> np.ndarray[Any, Any]:
    """Softness along a side with a border `before` or `after` it, [length] uint8."""
    import numpy as np

    places = np.arange(length)
    far = np.full(length, feathering)
    nearest = np.minimum(places if before else far, length - places if after else far)
    near = np.clip(feathering - nearest, 0, None) / max(1, feathering)
    soft: np.ndarray[Any, Any] = (255 * near**2).astype(np.uint8)
    return soft


def _sides(width: int, height: int, before: Size) -> Size:
    if width == height == 0:
        return before
    if width == 0:
        return max(1, round(before[0] * height / before[1])), height
    return width, height or max(1, round(before[1] * width / before[0]))


def _centre(size: Size, wanted: Size) -> tuple[float, float, float, float]:
    """Largest box of the shape of `wanted` in the middle."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    width, height = wanted[0] * scale, wanted[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _resampling(method: str) -> Resampling:
    from PIL.Image import Resampling

    return Resampling[_NAMES[METHODS.index(method)]]
