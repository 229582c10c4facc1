"""Tiles in which the module of a VAE wrapper encodes and decodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis, TileGrid


class TiledDecoder(ABC):
    """A module of diffusers that encodes and decodes in one piece, or in overlapping tiles: those
    of its own tiled methods, but one by one.

    Whether there are tiles follows from the size and from `room` alone.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self.room: int | None = None
        """Bytes of activations that one call of the module may take; None: any number."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the module's weights, in which it computes."""
        dtype: torch.dtype = self._module.dtype
        return dtype

    @property
    @abstractmethod
    def pixels_per_latent(self) -> int:
        """Pixels per latent along each side."""

    @property
    def module_scale(self) -> int:
        """Pixels per latent of the module along each side."""
        return self.pixels_per_latent

    @property
    def decoder_scale(self) -> int:
        """Pixels per value of the module's decoder along each side."""
        return 1

    # -- memory

    @property
    @abstractmethod
    def live_values(self) -> float:
        """Numbers that are alive at once while a picture or a chunk of a video is decoded, per
        pixel of a frame: most at the last and largest level, as many as it has channels there."""

    def decode_bytes(self, height: int, width: int, frames: int = 1) -> int:
        """Bytes of activations for decoding `frames` latent frames of this size in one piece, or
        in the chunks that it has in time."""
        return int(self.live_values * height * width * self.dtype.itemsize)

    def tile_bytes(self, frames: int = 1) -> int:
        """Bytes of activations for decoding a tile, or the chunks that it has in time."""
        down, across = self.tile_axes or (TileAxis(1, 1, 1, 0),) * 2
        scale = self.module_scale
        return self.decode_bytes(down.tile * scale, across.tile * scale, frames)

    def peak_bytes(self, height: int, width: int, frames: int = 1) -> int:
        """Bytes that decoding `frames` latent frames of this size takes at most, besides weights
        and latents: those of a tile and of its conversion, all frames in uint8, and the edges of
        tiles."""
        grid, axes = self.grid(height, width, frames), self.tile_axes
        if grid is None or axes is None or not self.is_tiled(height, width, frames):
            return self.decode_bytes(height, width, frames)
        (down, across), scale = axes, self.module_scale
        tile_height, tile_width = down.tile * scale, across.tile * scale
        lower_edges = -(-width // (across.stride * scale)) * tile_width * down.blend
        kept = 4 * tile_height * tile_width + (lower_edges + tile_height * across.blend)
        shown = 3 * self.tile_values(frames)[1]
        floats = kept * shown * self.dtype.itemsize
        return self.tile_bytes(frames) + height * width * shown + floats

    def is_tiled(self, height: int, width: int, frames: int = 1) -> bool:
        """True if pictures of this size in pixels are encoded and decoded in tiles."""
        axes, scale = self.tile_axes, self.module_scale
        if self.room is None or axes is None:
            return False
        down, across = axes
        larger = height > down.tile * scale or width > across.tile * scale
        return larger and self.decode_bytes(height, width, frames) > self.room

    # -- geometry

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        """Tiles down and across; None if the module has none that fit together."""
        down, across = (
            TileAxis.of_pixels(
                getattr(self._module, f"tile_sample_min_{side}"),
                getattr(self._module, f"tile_sample_stride_{side}"),
                self.module_scale,
                self.decoder_scale,
            )
            for side in ("height", "width")
        )
        return None if down is None or across is None else (down, across)

    def grid(self, height: int, width: int, frames: int = 1) -> TileGrid | None:
        """Tiles in which this many latent frames of this size in pixels are decoded; None: in one
        piece."""
        axes: Sequence[TileAxis | None] = (self.time_axis(frames), None, None)
        if self.is_tiled(height, width, frames) and self.tile_axes is not None:
            axes = (axes[0], *self.tile_axes)
        if not any(axes):
            return None
        scale = self.module_scale
        return TileGrid((frames, height // scale, width // scale), axes)

    def time_axis(self, frames: int) -> TileAxis | None:
        """Tiles in time that are decoded independently of one another, if there are any."""
        return None

    # -- decoding

    @abstractmethod
    def module_latents(self, latents: Tensor, **options: Any) -> Tensor:
        """Convert the denoiser's latents to those of the module, [1, C, T, h, w]."""

    @abstractmethod
    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Any, **options: Any
    ) -> tuple[Tensor, Any]:
        """Decode chunk `chunk` of a tile of the module's latents, [1, C, T, h, w].

        Returns the decoder's own output [1, C', F, H, W], and the state for the next chunk.
        """

    def tile_values(self, frames: int) -> tuple[int, int]:
        """C' and F of all chunks of a tile with this many latent frames."""
        return 3, frames

    def decoded_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the decoder's output for all chunks of a tile of this many latents."""
        scale = self.module_scale // self.decoder_scale
        return 1, *self.tile_values(frames), height * scale, width * scale

    def finished(self, decoded: Tensor) -> Tensor:
        """Convert the decoder's output [1, C', F, H, W] to pixels [F, 3, H, W]."""
        return decoded[0].transpose(0, 1)

    # -- encoding

    @contextmanager
    def tiled_encode(self, height: int, width: int, frames: int = 1) -> Iterator[None]:
        """Let the module encode pictures of this size in tiles, if they must be."""
        self._module.use_tiling = self.is_tiled(height, width, frames)
        try:
            yield
        finally:
            self._module.use_tiling = False


def overlapping(tile: int, latents: int, overlap: float, scale: int) -> TileAxis | None:
    """Tiles of `tile` pixels, `latents` latents of `scale` pixels each, of which a share `overlap`
    is blended. Returns None if these are not whole latents."""
    stride, blend = int(latents * (1 - overlap)), int(tile * overlap)
    if stride < 1 or stride * scale != tile - blend:
        return None
    return TileAxis(latents, stride, scale, blend)
