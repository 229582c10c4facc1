"""The same drawing in another colour: its main fill and all like it are moved, shades kept."""

from __future__ import annotations

import colorsys
import re
from functools import cache
from typing import NamedTuple

import numpy as np
from artwork import Icon, render

# The artwork's own palette, so that a recoloured drawing looks like one of the set.
COLORS = {
    "red": "#F8312F",
    "orange": "#FF822D",
    "yellow": "#FCD53F",
    "green": "#00D26A",
    "blue": "#0074BA",
    "purple": "#8D65C5",
    "pink": "#FF6DC6",
    "brown": "#6D4534",
    "black": "#212121",
    "white": "#F4F4F4",
    "gray": "#9B9B9B",
}
FILL = re.compile(r"#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")
CHROMATIC = 0.06
"""The least `chroma` of a fill that has a hue; the grays, near-whites and near-blacks have less."""
LIKE_HUE = 0.09
LIKE_LIGHTNESS = 0.3
NEAR_BLACK, NEAR_WHITE = 0.2, 0.92


class Tone(NamedTuple):
    hue: float
    lightness: float
    saturation: float

    @property
    def chroma(self) -> float:
        return self.saturation * min(self.lightness, 1 - self.lightness)


def recolor(icon: Icon, color: str, main: str | None = None) -> str:
    """The SVG body of `icon` in `color`, one of `COLORS`.

    All fills like `main`, by default `main_fill(icon)`, are moved by the same step. The others
    (eyes, wheels, a stem) stay.
    """
    origin = _tone(main or main_fill(icon))
    target = _tone(COLORS[color])

    def move(match: re.Match[str]) -> str:
        tone = _tone(match[0])
        return _hex(_moved(tone, origin, target)) if _alike(tone, origin) else match[0]

    return FILL.sub(move, icon.body)


@cache
def main_fill(icon: Icon) -> str:
    """The fill that most pixels have; one with a hue, if any such covers an eighth of them."""
    pixels = render(icon, 96).reshape(-1, 4).astype(int)
    pixels = pixels[pixels[:, 3] == 255, :3]
    areas: dict[str, int] = {
        fill: _area(pixels, fill) for fill in sorted(set(FILL.findall(icon.body)))
    }
    colored = {fill: area for fill, area in areas.items() if _tone(fill).chroma >= CHROMATIC}
    if max(colored.values(), default=0) * 8 >= len(pixels):
        areas = colored
    return max(areas, key=areas.__getitem__)


def _area(pixels: np.ndarray, fill: str) -> int:
    return int((np.abs(pixels - np.array(_channels(fill))).max(axis=1) < 6).sum())


def _alike(tone: Tone, origin: Tone) -> bool:
    if origin.chroma >= CHROMATIC:
        apart = abs(_turn(tone.hue, origin.hue))
        return tone.chroma >= CHROMATIC and apart <= LIKE_HUE
    # Eyes and outlines stay black and teeth white, unless that is what the whole thing is.
    lowest = min(NEAR_BLACK, origin.lightness)
    highest = max(NEAR_WHITE, origin.lightness)
    return (
        tone.chroma < CHROMATIC
        and lowest <= tone.lightness <= highest
        and abs(tone.lightness - origin.lightness) <= LIKE_LIGHTNESS
    )


def _moved(tone: Tone, origin: Tone, target: Tone) -> Tone:
    """`tone` as far from `target` as it was from `origin`, or a little nearer."""
    # Black and white have shades on one side only: theirs are kept closer together.
    extreme = not NEAR_BLACK <= target.lightness <= NEAR_WHITE
    lightness = target.lightness + (0.6 if extreme else 0.8) * (tone.lightness - origin.lightness)
    hue, saturation = target.hue, target.saturation
    if origin.chroma >= CHROMATIC:
        hue += 0.4 * _turn(tone.hue, origin.hue)
        saturation *= tone.saturation / origin.saturation
    return Tone(hue % 1, min(max(lightness, 0.04), 0.97), min(saturation, 1.0))


def _turn(hue: float, origin: float) -> float:
    """From `origin` to `hue` the short way round, in -0.5..0.5 of a circle."""
    return (hue - origin + 0.5) % 1 - 0.5


def _channels(fill: str) -> tuple[int, int, int]:
    digits = fill[1:] if len(fill) == 7 else "".join(2 * digit for digit in fill[1:])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _tone(fill: str) -> Tone:
    red, green, blue = _channels(fill)
    return Tone(*colorsys.rgb_to_hls(red / 255, green / 255, blue / 255))


def _hex(tone: Tone) -> str:
    return "#" + "".join(f"{round(255 * channel):02X}" for channel in colorsys.hls_to_rgb(*tone))
