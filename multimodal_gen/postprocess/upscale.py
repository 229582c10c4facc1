"""Enlarges images by interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

UPSCALERS = ("None", "Lanczos", "Nearest")
"""In the names of AUTOMATIC1111; `None` leaves an image as it is."""


@dataclass(frozen=True)
class TargetSize:
    """Size of the result: a multiple of the image's, or at least `width` x `height`."""

    factor: float
    width: int | None = None
    height: int | None = None
    crop: bool = False
    """Cut the result to exactly `width` x `height`, at its center."""

    def of(self, image: Image) -> tuple[int, int]:
        """Width and height of the resized image, before it is cut."""
        factor = self.factor
        if self.width is not None and self.height is not None:
            factor = max(self.width / image.width, self.height / image.height)
        return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def upscale(image: Image, upscaler: str, target: TargetSize) -> Image:
    """Resize by one of `UPSCALERS`."""
    from PIL import Image, ImageOps

    if upscaler == "None":
        return image
    method = Image.Resampling.NEAREST if upscaler == "Nearest" else Image.Resampling.LANCZOS
    result = image.resize(target.of(image), method)
    if target.crop and target.width is not None and target.height is not None:
        return ImageOps.fit(result, (target.width, target.height), method)
    return result
