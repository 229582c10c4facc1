"""Which drawing a picture shows, whatever its place, size, tilt, mirroring and background.

The object is cut out and compared with all drawings treated alike: put on the same background,
upright and tilted, cut out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from concepts import Concept, picture
from cutting import TOLERANCE, border_color, cut_out, cut_out_two
from PIL import Image
from scenes import BACKGROUNDS, rgb, shade_of

Key = tuple[str, str | None]
"""Name of a concept, and its colour unless it is the drawing's own."""

TILTS = (0, -10, 10)
SAME = 0.02
"""Drawings that are nearer to one another than this (RMS of 0..1) count as one another."""
CANVAS, DRAWN = 64, 52


class Match(NamedTuple):
    """What a picture was compared with."""

    background: str
    """The word for it."""
    distances: np.ndarray
    """RMS, in 0..1, to each of the gallery's keys in their order; infinite if unseen."""


class Gallery:
    """All drawings that a picture may show, in all their colours, trained or not."""

    def __init__(self, concepts: Mapping[str, Concept]) -> None:
        self.keys: list[Key] = [
            (name, color)
            for name, concept in concepts.items()
            for color in (None, *concept.colors, *concept.held_out)
        ]
        drawings = [picture(concepts[name], color, DRAWN) for name, color in self.keys]
        self._tilted = np.stack([_on_canvas(d, tilt) for tilt in TILTS for d in drawings])
        self._mirrored = np.array([concepts[name].mirror for name, _ in self.keys])
        self._place = {key: place for place, key in enumerate(self.keys)}
        self._on_shade: dict[str, np.ndarray] = {}

    def match(self, pictures: np.ndarray) -> list[Match]:
        """Of RGB pictures, uint8 [n, height, width, 3], one object in each."""
        return self._matches(list(pictures), cut_out(pictures))

    def match_two(self, pictures: np.ndarray) -> list[tuple[Match, Match]]:
        """Of pictures with two objects in each."""
        found = np.concatenate([cut_out_two(image) for image in pictures])
        matches = self._matches([image for image in pictures for _ in range(2)], found)
        return list(zip(matches[::2], matches[1::2], strict=True))

    def rank_of_name(self, match: Match, name: str) -> int:
        """How many other concepts are nearer than the one asked for, in whatever colour."""
        like = self._likes((name, None)) | {
            place for place, key in enumerate(self.keys) if key[0] == name
        }
        return len({self.keys[place][0] for place in self._nearer(match, like)})

    def rank_of_key(self, match: Match, key: Key) -> int:
        """How many other drawings are nearer than the one asked for, its colour included."""
        return len(self._nearer(match, self._likes(key)))

    def nearest(self, match: Match) -> tuple[Key, float]:
        place = int(match.distances.argmin())
        return self.keys[place], float(match.distances[place])

    def seen(self, key: Key, shade: str) -> float:
        """The share of a drawing that can be told from a background, 0..1."""
        canvas = self._tilted[self._place[key]]
        drawn = canvas[..., 3] > 127
        apart = np.abs(canvas[..., :3].astype(int) - rgb(shade)).max(axis=-1) > TOLERANCE
        return float((drawn & apart).sum() / max(1, drawn.sum()))

    def _nearer(self, match: Match, like: set[int]) -> np.ndarray:
        best = match.distances[list(like)].min()
        if not np.isfinite(best):
            return np.arange(len(self.keys))
        return np.flatnonzero(match.distances < best)

    def _likes(self, key: Key) -> set[int]:
        """Where the key and all drawings that are nearly the same stand."""
        return {self._place[key], *np.flatnonzero(self._alike[self._place[key]]).tolist()}

    @cached_property
    def _alike(self) -> np.ndarray:
        """Bool [keys, keys], upright on white."""
        upright = self._objects("FFFFFF")[: len(self.keys)]
        return self._distances(upright, upright) < SAME

    def _matches(self, pictures: list[np.ndarray], found: np.ndarray) -> list[Match]:
        grounds = [_nearest_shade(border_color(image)) for image in pictures]
        distances = np.empty((len(pictures), len(self.keys)), np.float32)
        for shade in {shade for _, shade in grounds}:
            those = [at for at, ground in enumerate(grounds) if ground[1] == shade]
            distances[those] = self._distances(found[those], self._objects(shade))
        return [Match(word, row) for (word, _), row in zip(grounds, distances, strict=True)]

    def _distances(self, found: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """[n, keys]: from each object to the nearest tilt, mirrored where that is allowed."""
        split = (len(found), -1, len(self.keys))
        plain = _rms(found, objects).reshape(split).min(axis=1)
        mirrored = _rms(found[:, :, ::-1], objects).reshape(split).min(axis=1)
        return np.where(self._mirrored, np.minimum(plain, mirrored), plain)

    def _objects(self, shade: str) -> np.ndarray:
        """All drawings, cut out of that background: uint8 [tilts * keys, side, side, 3]."""
        if shade not in self._on_shade:
            self._on_shade[shade] = cut_out(_laid_on(shade, self._tilted))
        return self._on_shade[shade]


def _nearest_shade(color: np.ndarray) -> tuple[str, str]:
    """Word and shade of the background that is most like it."""
    shades = [
        (word, shade_of(word, lightness)) for word in BACKGROUNDS for lightness in (0, 0.5, 1)
    ]
    return min(shades, key=lambda known: float(np.square(color - rgb(known[1])).sum()))


def _on_canvas(drawing: np.ndarray, tilt: float) -> np.ndarray:
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    edge = (CANVAS - DRAWN) // 2
    canvas.paste(Image.fromarray(drawing).rotate(tilt, Image.Resampling.BICUBIC), (edge, edge))
    return np.asarray(canvas)


def _laid_on(shade: str, canvases: np.ndarray) -> np.ndarray:
    """RGB, uint8."""
    laid = np.empty((*canvases.shape[:3], 3), np.uint8)
    for canvas, out in zip(canvases, laid, strict=True):
        alpha = canvas[..., 3:].astype(np.float32) / 255
        out[:] = (canvas[..., :3] * alpha + np.array(rgb(shade)) * (1 - alpha)).round()
    return laid


def _rms(found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[n, m]; infinite to and from objects of which nothing is seen."""
    left = found.reshape(len(found), -1).astype(np.float32) / 255
    right = objects.reshape(len(objects), -1).astype(np.float32) / 255
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)
    distances = np.sqrt(np.maximum(squares - 2 * left @ right.T, 0) / left.shape[1])
    distances[~left.any(axis=1)] = np.inf
    distances[:, ~right.any(axis=1)] = np.inf
    return distances
