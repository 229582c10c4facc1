"""Blends neighbouring tiles, one by one in their order, as diffusers' tiled autoencoders do."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.tiles.geometry import TileGrid, TilePlace

_FRAMES, _ROWS, _COLUMNS = 2, 3, 4


class TileBlender:
    """Turns decoded tiles [1, C, F, H, W] into the parts of the whole that are shown of them.

    It keeps the edges that the following tiles are blended with, and no whole tile.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._above: dict[int, Tensor] = {}
        """Lower edges of the tiles in the row before, by column."""
        self._left: Tensor | None = None
        self._before: dict[tuple[int, int], Tensor] = {}
        """Last frames of the tiles before in time, by row and column."""

    def shown(self, place: TilePlace, tile: Tensor) -> Tensor:
        """Return what is shown of the next tile, which is changed in place."""
        _, height, width = self._grid.axes
        if height is not None and place.row:
            _blend(self._above[place.column], tile, _ROWS, height.blend, height.margin)
        if width is not None:
            if place.column:
                assert self._left is not None
                _blend(self._left, tile, _COLUMNS, width.blend, width.margin)
            self._left = _end(tile, _COLUMNS, width.blend)
        if height is not None:
            self._above[place.column] = _end(tile, _ROWS, height.blend)
            tile = tile[:, :, :, : height.kept]
        if width is not None:
            tile = tile[..., : width.kept]
        return self._shown_frames(place, tile)

    def _shown_frames(self, place: TilePlace, tile: Tensor) -> Tensor:
        time, _, _ = self._grid.axes
        if time is None:
            return tile
        if place.time:
            tile = tile[:, :, time.lead :]
            _blend(self._before.pop(place[1:]), tile, _FRAMES, time.blend)
        if not self._grid.is_last(place, 0):
            self._before[place[1:]] = _end(tile, _FRAMES, time.blend)
        return tile[:, :, : time.kept + (0 if place.time else time.lead)]


def _blend(before: Tensor, tile: Tensor, dim: int, extent: int, margin: int = 0) -> None:
    """Fade from the end of `before` to the start of `tile`, which overlap by `extent` at most:
    between `margin` values at either end of it."""
    faded, extent = extent - 2 * margin, min(extent, before.shape[dim], tile.shape[dim])
    if not extent:
        return
    steps = torch.arange(extent, device=tile.device, dtype=torch.float32)
    weight = ((steps - margin) / faded).clamp(0, 1) if margin else steps / extent
    weight = weight.view(-1, *(1,) * (tile.dim() - 1 - dim))
    own = tile.narrow(dim, 0, extent)
    other = before.narrow(dim, before.shape[dim] - extent, extent)
    own.copy_(other * (1 - weight) + own * weight)


def _end(tile: Tensor, dim: int, extent: int) -> Tensor:
    """A copy of the last `extent` values along a dimension, which keeps no more of the tile."""
    extent = min(extent, tile.shape[dim])
    return tile.narrow(dim, tile.shape[dim] - extent, extent).clone()
