"""What the denoiser learns from: scenes drawn at random, as pictures of every size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from captions import Scene, Thing
from concepts import Concept, picture
from scenes import BACKGROUNDS, RENDERED, Placed, compose, pastel, rgb, shade_of

NATIVE = (96, 96)
SIZES: dict[tuple[int, int], float] = {
    NATIVE: 0.8,
    (112, 112): 0.05,
    (128, 128): 0.05,
    (96, 128): 0.05,
    (128, 96): 0.05,
}
"""Height and width, and how often."""
TOKEN = 16
"""Pixels a side of what the denoiser sees as one: from size to size a thing is moved by whole ones,
so that it looks the same to it in all of them."""
SINGLE, DOUBLE = 80, 48
"""Pixels a side of a thing alone, and of one of two. One size each: others had to be learned
anew."""
UNKNOWN = "red question mark"
"""What stands for words that mean nothing."""
RECOLORED, PAIRED, UNKNOWN_SHARE = 0.2, 0.16, 0.02
EVERYDAY = 2
"""So many times as often as others things are drawn that people ask for."""
SAID = 0.35
"""How often the background is mentioned. One that isn't is of any light hue: were some of these
white, guidance would turn more of them white, and seeds would look alike."""
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
        background, shade = self._background(things, rng)
        scene = Scene(things, background, unknown)
        return Drawn(scene, shade, _places(len(things), height, width))

    def paint(self, drawn: Drawn, height: int, width: int) -> np.ndarray:
        """RGB, uint8 [height, width, 3]."""
        drawings = [self.drawing(thing) for thing in drawn.scene.things]
        return compose(drawings, list(drawn.places), drawn.shade, height, width)

    def _draw(self, thing: Thing) -> np.ndarray:
        return picture(self._concepts[thing.concept], thing.color, RENDERED)

    def _background(
        self, things: tuple[Thing, ...], rng: np.random.Generator
    ) -> tuple[str | None, str]:
        """Its word, if it is to be said, and its shade. One that hides nothing of the things."""
        said = rng.random() < SAID
        for _ in range(8):
            word = str(rng.choice(list(BACKGROUNDS))) if said else None
            shade = pastel(rng) if word is None else shade_of(word, rng.random())
            if all(self._hidden(thing, shade) < HIDDEN for thing in things):
                break
        return word, shade

    def _hidden(self, thing: Thing, shade: str) -> float:
        drawing = self.drawing(thing)[::4, ::4].astype(np.int16)
        opaque = drawing[drawing[..., 3] > 128][:, :3]
        return float((np.abs(opaque - np.array(rgb(shade))).max(1) < 40).mean())


def _places(count: int, height: int, width: int) -> tuple[Placed, ...]:
    """Where things stand: one, or two side by side (in a tall picture, one above the other).

    Always there: were it left to chance, what is drawn would often be a blend of two places.
    """
    if count == 1:
        top, left = (_middle(room - SINGLE, TOKEN // 2) for room in (height, width))
        return (Placed(SINGLE, left, top),)
    long, short = max(height, width), min(height, width)
    first, beside = _middle(long - 2 * DOUBLE, 0), _middle(short - DOUBLE, TOKEN // 2)
    if width >= height:
        return Placed(DOUBLE, first, beside), Placed(DOUBLE, first + DOUBLE, beside)
    return Placed(DOUBLE, beside, first), Placed(DOUBLE, beside, first + DOUBLE)


def _middle(room: int, offset: int) -> int:
    """Of the places `offset` + n * TOKEN the nearest to half of `room`."""
    return offset + TOKEN * ((room // 2 - offset + TOKEN // 2) // TOKEN)
