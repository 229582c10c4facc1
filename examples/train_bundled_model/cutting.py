"""Objects cut out of plain backgrounds, so that pictures can be compared."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 24
"""Pixels a side of what is cut out."""
TOLERANCE = 24
"""A channel may be this far from the background, of 255, in a pixel that still belongs to it."""
SPECK = 0.01
"""Parts with less than this share of the object's pixels are dropped."""
CHUNK = 128
"""Pictures at once."""


def border_color(picture: np.ndarray) -> np.ndarray:
    """The median of the outermost two pixels of [height, width, 3]: RGB."""
    edges = (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:])
    return np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)


def cut_out(pictures: np.ndarray) -> np.ndarray:
    """The object of each, cropped, on white, square: uint8 [n, SIDE, SIDE, 3]; 0 if there is none.

    `pictures` are RGB, uint8 [n, height, width, 3].
    """
    chunks = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
    return np.stack(
        [
            _cropped(picture, where)
            for chunk in chunks
            for picture, where in zip(chunk, _objects(chunk), strict=True)
        ]
    )


def cut_out_two(picture: np.ndarray) -> np.ndarray:
    """The two objects of one picture, [2, SIDE, SIDE, 3], parted where least lies between."""
    where = _objects(picture[None])[0]
    turned, cut = min(
        ((turned, _cut(where.T if turned else where)) for turned in (False, True)),
        key=lambda found: found[1][0],
    )
    if turned:
        picture, where = picture.swapaxes(0, 1), where.T
    column = cut[1]
    halves = [
        _cropped(picture[:, part], where[:, part])
        for part in (slice(column), slice(column, where.shape[1]))
    ]
    return np.stack([half.swapaxes(0, 1) if turned else half for half in halves])


def _cut(where: np.ndarray) -> tuple[tuple[int, int], int]:
    """How bad the best column to cut at is (pixels cut, inequality of the halves), and that."""
    areas = where.sum(axis=0)
    before = np.cumsum(areas)
    uneven = np.abs(2 * before - before[-1])
    columns = np.arange(where.shape[1] // 4, 3 * where.shape[1] // 4)
    best = min(columns, key=lambda column: (areas[column], uneven[column]))
    return (int(areas[best]), int(uneven[best])), int(best)


def _objects(pictures: np.ndarray) -> np.ndarray:
    """Where the objects are, bool [n, height, width]: all but what the border runs into."""
    colors = np.stack([border_color(picture) for picture in pictures])
    apart = np.abs(pictures - colors[:, None, None].astype(np.float32)).max(axis=-1)
    like = np.ascontiguousarray(np.moveaxis(apart <= TOLERANCE, 0, -1))  # [height, width, n]
    border = np.zeros(like.shape, np.uint8)
    border[[0, -1]] = border[:, [0, -1]] = 1
    objects = _spread(border, like) == 0
    numbers = np.arange(1, objects.size + 1, dtype=np.int32).reshape(objects.shape)
    parts = _spread(numbers, objects)
    areas = np.bincount(parts.ravel(), minlength=objects.size + 1)
    kept: np.ndarray = areas[parts] >= SPECK * objects.sum(axis=(0, 1))
    return np.moveaxis(kept & objects, -1, 0)


def _spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The largest value of each connected part of `mask`, in all of that part; 0 outside.

    Many pictures at once, [height, width, n]: a step of Python is a line of all of them.
    """
    values = values * mask
    while True:
        before = values.copy()
        for axis in (0, 1):
            lines, inside = np.moveaxis(values, axis, 0), np.moveaxis(mask, axis, 0)
            for order in (range(1, len(lines)), range(len(lines) - 2, -1, -1)):
                for line in order:
                    neighbour = lines[line - order.step] * inside[line]
                    np.maximum(lines[line], neighbour, out=lines[line])
        if np.array_equal(values, before):
            return values


def _cropped(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    if not where.any():
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    lifted = np.where(where[..., None], picture, 255).astype(np.uint8)[box]
    height, width = lifted.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(Image.fromarray(lifted), ((side - width) // 2, (side - height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
