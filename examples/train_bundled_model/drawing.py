"""What the denoiser learns from: scenes drawn at random, as pictures of every size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from captions import Scene, Thing
from concepts import Concept, picture
from scenes import BACKGROUNDS, RENDERED, Placed, compose, rgb

NATIVE = (112, 112)
SIZES: dict[tuple[int, int], float] = {
    NATIVE: 0.8,
    (96, 96): 0.08,
    (128, 128): 0.05,
    (96, 128): 0.04,
    (128, 96): 0.03,
}
"""Height and width, and how often."""
TOKEN = 16
"""Pixels a side of what the denoiser sees as one: a thing is moved by whole ones, so that it looks
the same to it at every place."""
SINGLE, DOUBLE = 80, 48
"""Pixels a side of a thing alone, and of one of two. One size each: others had to be learned
anew."""
UNKNOWN = "red question mark"
"""What stands for words that mean nothing."""
RECOLORED, PAIRED, UNKNOWN_SHARE = 0.22, 0.18, 0.02
EVERYDAY = 2
"""So many times as often as others things are drawn that people ask for."""
WHITE, LIGHT = 0.35, 0.42
"""How often a background is white, and how often light; strong ones are always said."""
SAID_OF_WHITE, SAID_OF_LIGHT = 0.06, 0.35
HIDDEN = 0.4
"""Share of a drawing that may be of the background's colour."""


class Drawn(NamedTuple):
    scene: Scene
    shade: str
    places: tuple[Placed, ...]


class Artist:
    """Draws scenes over `concepts`. Keeps every drawing it has made."""

    def __init__(self, concepts: Mapping[str, Concept]) -> None:
        self._concepts = concepts
        self._singles = [Thing(name) for name in concepts]
        self._recolored = [Thing(n, color) for n, c in concepts.items() for color in c.colors]
        everyday = [thing for thing in self._singles if concepts[thing.concept].everyday]
        self._paired = [thing for thing in everyday if concepts[thing.concept].paired]
        self._singles += (EVERYDAY - 1) * everyday
        self.drawing = cache(self._draw)

    def imagine(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """A scene for a picture of this size."""
        kind = rng.random()
        if kind < UNKNOWN_SHARE and UNKNOWN in self._concepts:
            things, unknown = (Thing(UNKNOWN),), True
        elif kind < UNKNOWN_SHARE + PAIRED:
            picked = rng.integers(len(self._paired), size=2)
            things, unknown = tuple(self._paired[place] for place in picked), False
        else:
            recolored = rng.random() < RECOLORED / (1 - UNKNOWN_SHARE - PAIRED)
            pool = self._recolored if recolored and self._recolored else self._singles
            things, unknown = (pool[rng.integers(len(pool))],), False
        background, shade, spoken = self._background(things, rng)
        scene = Scene(things, background, spoken, unknown)
        return Drawn(scene, shade, _places(len(things), height, width, rng))

    def paint(self, drawn: Drawn, height: int, width: int) -> np.ndarray:
        """RGB, uint8 [height, width, 3]."""
        drawings = [self.drawing(thing) for thing in drawn.scene.things]
        return compose(drawings, list(drawn.places), drawn.shade, height, width)

    def _draw(self, thing: Thing) -> np.ndarray:
        return picture(self._concepts[thing.concept], thing.color, RENDERED)

    def _background(
        self, things: tuple[Thing, ...], rng: np.random.Generator
    ) -> tuple[str, str, float]:
        """Its word, its shade, and how often it is said. One that hides nothing of the things."""
        for _ in range(8):
            kind = rng.random()
            word = str(rng.choice(list(BACKGROUNDS)))
            if kind < WHITE:
                word, shade, spoken = "white", BACKGROUNDS["white"][0], SAID_OF_WHITE
            elif kind < WHITE + LIGHT and len(BACKGROUNDS[word]) > 1:
                shade, spoken = BACKGROUNDS[word][1], SAID_OF_LIGHT
            else:
                shade, spoken = BACKGROUNDS[word][0], 1.0
            if all(self._hidden(thing, shade) < HIDDEN for thing in things):
                break
        return word, shade, spoken

    def _hidden(self, thing: Thing, shade: str) -> float:
        drawing = self.drawing(thing)[::4, ::4].astype(np.int16)
        opaque = drawing[drawing[..., 3] > 128][:, :3]
        return float((np.abs(opaque - np.array(rgb(shade))).max(1) < 40).mean())


def _places(count: int, height: int, width: int, rng: np.random.Generator) -> tuple[Placed, ...]:
    """Where things stand: one, or two side by side (in a tall picture, stacked).

    Chance moves one alone, and along the longer side only: with more freedom, what is drawn is more
    often a blend of two places.
    """
    long, short = max(height, width), min(height, width)
    side = SINGLE if count == 1 else DOUBLE
    offset, chance = (TOKEN // 2, rng) if count == 1 else (0, None)
    first = _near_the_middle(long - count * side, offset, chance)
    across = _near_the_middle(short - side, TOKEN // 2)
    if count == 1:
        return (Placed(side, first, across) if width >= height else Placed(side, across, first),)
    if width >= height:
        return Placed(DOUBLE, first, across), Placed(DOUBLE, first + DOUBLE, across)
    return Placed(DOUBLE, across, first), Placed(DOUBLE, across, first + DOUBLE)


def _near_the_middle(room: int, offset: int, rng: np.random.Generator | None = None) -> int:
    """Of the places `offset` + n * TOKEN the nearest to half of `room`; of two by chance, or the
    second."""
    steps, half = divmod(room // 2 - offset, TOKEN)
    second = half > 0 if rng is None else half > 0 and bool(rng.integers(2))
    return offset + TOKEN * (steps + second)
