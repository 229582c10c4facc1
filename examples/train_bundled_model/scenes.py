"""Pictures put together: things on a plain background, at a size, place and tilt."""

from __future__ import annotations

from collections.abc import Iterable
from colorsys import hsv_to_rgb
from typing import NamedTuple

import numpy as np
from PIL import Image

RENDERED = 160
"""Pixels a side at which drawings are kept, before they are placed."""

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "white": ("FFFFFF",),
    "red": ("E8413C", "FF9C97"),
    "orange": ("FF9A3D", "FFCB98"),
    "yellow": ("FFD93B", "FFF0A6"),
    "green": ("3CCB7F", "B8ECC8"),
    "blue": ("2F7FD8", "ACD8FF"),
    "purple": ("8A63D2", "D6C4F6"),
    "pink": ("FF7FC8", "FFCDE9"),
    "gray": ("9A9A9A", "D8D8D8"),
    "brown": ("8A5A44", "B9835F"),
    "black": ("1A1A1A",),
}
"""The strongest and the lightest shade of each."""


class Placed(NamedTuple):
    """One drawing in a picture: a square of `size` pixels whose corner is at (left, top)."""

    size: int
    left: int
    top: int
    tilt: float = 0.0
    """Degrees, counterclockwise."""


def rgb(shade: str) -> tuple[int, int, int]:
    return int(shade[0:2], 16), int(shade[2:4], 16), int(shade[4:6], 16)


def shade_of(background: str, lightness: float) -> str:
    """A shade between its strongest (0) and its lightest (1)."""
    strong, light = (np.array(rgb(BACKGROUNDS[background][at])) for at in (0, -1))
    return _hex(strong + lightness * (light - strong))


def pastel(rng: np.random.Generator) -> str:
    """A light shade of any hue."""
    color = hsv_to_rgb(rng.random(), rng.uniform(0.12, 0.5), rng.uniform(0.88, 1))
    return _hex([255 * value for value in color])


def _hex(color: Iterable[float]) -> str:
    return "".join(f"{round(value):02X}" for value in color)


def compose(
    drawings: list[np.ndarray], places: list[Placed], shade: str, height: int, width: int
) -> np.ndarray:
    """Drawings (RGBA, uint8) on a background of one shade: RGB, uint8 [height, width, 3]."""
    canvas = Image.new("RGB", (width, height), rgb(shade))
    for drawing, placed in zip(drawings, places, strict=True):
        picture = Image.fromarray(drawing)
        if placed.tilt:
            picture = picture.rotate(placed.tilt, Image.Resampling.BICUBIC)
        picture = picture.resize((placed.size, placed.size), Image.Resampling.LANCZOS)
        canvas.paste(picture, (placed.left, placed.top), picture)
    return np.asarray(canvas)
