"""Decodes the tiles of one request, a unit at a time, over all ranks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import receive, send
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.tiles.blending import TileBlender
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileGrid, TilePlace


class TileMaker(Protocol):
    """Makes values of tiles: a VAE, or a model that enlarges; as `TiledDecoder` documents."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def module_scale(self) -> int: ...

    def module_latents(self, latents: Tensor, **options: Any) -> Tensor: ...

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Any, **options: Any
    ) -> tuple[Tensor, Any]: ...

    def decoded_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]: ...

    def finished(self, decoded: Tensor) -> Tensor: ...


class TileRun:
    """In each turn the first `ranks` ranks decode one tile each, in as many units as a tile has
    chunks in time; then rank 0 collects and blends them. So tiles and pixels are the same on any
    number of ranks.

    Besides one tile it holds the frames so far, in uint8, and the edges of tiles. No unit raises:
    ranks wait for one another. A rank that fails goes on without decoding, and sends NaN.
    """

    def __init__(
        self,
        vae: TileMaker,
        grid: TileGrid,
        latents: Tensor,
        rank: int,
        *,
        ranks: int,
        chunks: int,
        options: Mapping[str, Any],
    ) -> None:
        """`latents` are the denoiser's, `chunks` those in time of a tile, and `options` arguments
        of the VAE."""
        self.failure: Exception | None = None
        """The first error on this rank."""
        self._vae = vae
        self._grid = grid
        self._latents = latents
        self._rank = rank
        self._ranks = ranks
        self._chunks = chunks
        self._options = options
        self._module_latents: Tensor | None = None
        self._unit = 0
        self._parts: list[Tensor] = []
        """Chunks of this rank's tile."""
        self._carry: Any = None
        self._blender = TileBlender(grid)
        self._canvas: Tensor | None = None
        """Frames that are not complete yet, [F, H, W, 3] uint8."""

    @classmethod
    def units(cls, grid: TileGrid, ranks: int, chunks: int) -> int:
        """Number of units that a run has."""
        return -(-len(grid) // ranks) * chunks

    def advance(
        self, measure: Callable[[Tensor], None], finish: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Do the next unit. Returns the frames that it completed, each [F, H, W, 3] uint8.

        Only rank 0 has frames; there, `measure` is given all pixels, and `finish` all frames.
        """
        turn, chunk = divmod(self._unit, self._chunks)
        self._unit += 1
        places = self._grid.places[turn * self._ranks : (turn + 1) * self._ranks]
        if self._rank < len(places):
            self._try(partial(self._decode, places[self._rank], chunk))
        if chunk < self._chunks - 1:
            return []
        complete: list[Tensor] = []
        for place, tile in self._exchanged(places):
            self._try(partial(self._put, place, tile, measure))
            if self._grid.ends_canvas(place):
                self._try(lambda: complete.append(finish(self._take_canvas())))
        return complete

    def _exchanged(self, places: Sequence[TilePlace]) -> Iterator[tuple[TilePlace, Tensor]]:
        """Yield the tiles of a turn, one from each rank, in order; on other ranks, send theirs."""
        if 0 < self._rank < len(places):
            send(self._own_tile(places[self._rank]), 0)
        for sender, place in enumerate(places if self._rank == 0 else ()):
            yield place, receive(self._empty(place), sender) if sender else self._own_tile(place)

    def _take_canvas(self) -> Tensor:
        canvas, self._canvas = self._canvas, None
        assert canvas is not None
        return canvas

    def _try(self, work: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            work()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the memory of the failed try
            self.failure = error
            self._parts, self._carry = [], None

    def _decode(self, place: TilePlace, chunk: int) -> None:
        """Decode one chunk of this rank's tile."""
        if self._module_latents is None:
            self._module_latents = self._vae.module_latents(self._latents, **self._options)
        time, down, across = self._grid.spans(place)
        tile = self._module_latents[:, :, time, down, across]
        seed = self._options["seed"] + self._grid.places.index(place)
        part, self._carry = self._vae.decode_tile(
            tile, chunk, self._carry if chunk else None, **{**self._options, "seed": seed}
        )
        self._parts.append(part)

    def _own_tile(self, place: TilePlace) -> Tensor:
        self._try(self._join_parts)
        parts, self._parts, self._carry = self._parts, [], None
        return self._empty(place).fill_(torch.nan) if self.failure else parts[0]

    def _join_parts(self) -> None:
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts, dim=2)]

    def _empty(self, place: TilePlace) -> Tensor:
        latents = [span.stop - span.start for span in self._grid.spans(place)]
        return torch.empty(
            self._vae.decoded_shape(*latents), dtype=self._vae.dtype, device=self._latents.device
        )

    def _put(self, place: TilePlace, tile: Tensor, measure: Callable[[Tensor], None]) -> None:
        """Add a tile to the frames."""
        pixels = self._vae.finished(self._blender.shown(place, tile))
        measure(pixels)
        if self._canvas is None:
            height, width = (length * self._vae.module_scale for length in self._grid.shape[1:])
            shape = len(pixels), height, width, 3
            self._canvas = torch.empty(shape, dtype=torch.uint8, device=pixels.device)
        top, left = (span.start * self._vae.module_scale for span in self._grid.spans(place)[1:])
        height, width = pixels.shape[2:]
        self._canvas[:, top : top + height, left : left + width] = to_uint8(pixels)
