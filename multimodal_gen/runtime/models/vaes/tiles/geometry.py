"""Places of tiles, and the part that is shown of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one dimension of the latents. Each is blended with the one before it."""

    tile: int
    """Latents per tile."""
    stride: int
    """Latents from one tile to the next."""
    pixels: int
    """Values that the decoder makes of each latent."""
    blend: int
    """Values that are blended with the previous tile."""
    lead: int = 0
    """Latents that a tile begins with besides, each of which becomes one value. Those values are
    shown of the first tile only."""
    margin: int = 0
    """Values at both ends of the overlap that only the other tile shows."""

    @property
    def kept(self) -> int:
        """Values that are shown of each tile, except the last one."""
        return self.stride * self.pixels

    def spans(self, length: int) -> list[slice]:
        """Latents of each tile."""
        starts = range(0, length - self.lead, self.stride)
        return [slice(start, min(start + self.tile + self.lead, length)) for start in starts]

    def values(self, latents: int) -> int:
        """Values that the decoder makes of so many latents."""
        return (latents - self.lead) * self.pixels + self.lead

    @classmethod
    def of_pixels(cls, tile: int, stride: int, pixels: int, scale: int = 1) -> TileAxis | None:
        """Create it from `tile` and `stride` in pixels; `pixels` are those per latent, and `scale`
        those per value of the decoder. Returns None unless they are whole numbers of latents."""
        if pixels < 1 or tile % pixels or stride % pixels or not 0 < stride <= tile:
            return None
        return cls(tile // pixels, stride // pixels, pixels // scale, (tile - stride) // scale)


class TilePlace(NamedTuple):
    """A tile's number along each dimension."""

    time: int
    row: int
    column: int


class TileGrid:
    """Tiles of latents [T, h, w], in the order in which they are blended: a dimension that has an
    axis is cut, others are whole."""

    def __init__(self, shape: Sequence[int], axes: Sequence[TileAxis | None]) -> None:
        self.shape = tuple(shape)
        self.axes = tuple(axes)
        self._spans = [
            [slice(0, length)] if axis is None else axis.spans(length)
            for length, axis in zip(shape, axes, strict=True)
        ]
        self.places = [TilePlace(*at) for at in product(*map(range, map(len, self._spans)))]

    def __len__(self) -> int:
        return len(self.places)

    def spans(self, place: TilePlace) -> tuple[slice, ...]:
        """Latents of a tile along each dimension."""
        return tuple(spans[at] for spans, at in zip(self._spans, place, strict=True))

    def is_last(self, place: TilePlace, dim: int) -> bool:
        """True if no tile follows along dimension `dim` (0: time, 1: down, 2: across)."""
        return place[dim] == len(self._spans[dim]) - 1

    def ends_canvas(self, place: TilePlace) -> bool:
        """True if the frames of this tile are complete with it."""
        return self.is_last(place, 1) and self.is_last(place, 2)
