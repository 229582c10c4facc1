"""Models that enlarge pictures, run tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.input_images import resized
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis, TileGrid
from multimodal_gen.runtime.models.vaes.tiles.tile_run import TileRun

TILE, OVERLAP, MARGIN = 256, 64, 24
"""Pixels of the picture: of a tile, of which so many overlap with the next one; of those, the
margin at either end is taken from the tile that it is further inside of."""


class Upscaler:
    """A model of spandrel's. What `TileRun` calls latents are pixels [1, 3, F, H, W] uint8."""

    def __init__(self, name: str, descriptor: Any) -> None:
        self.name = name
        self.scale = int(descriptor.scale)
        self._descriptor = descriptor

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._descriptor.dtype
        return dtype

    @property
    def module_scale(self) -> int:
        """Pixels of the result per pixel along each side."""
        return self.scale

    def grid(self, frames: int, height: int, width: int) -> TileGrid:
        """Tiles of pictures of this size, frame by frame."""
        time = TileAxis(1, 1, 1, 0) if frames > 1 else None
        side = None
        if self._descriptor.tiling.name == "SUPPORTED":
            scale = self.scale
            side = TileAxis(TILE, TILE - OVERLAP, scale, OVERLAP * scale, 0, MARGIN * scale)
        return TileGrid((frames, height, width), (time, side, side))

    def module_latents(self, latents: Tensor, **options: Any) -> Tensor:
        return latents

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Any, **options: Any
    ) -> tuple[Tensor, Any]:
        """[1, 3, 1, h, w] uint8 -> [1, 3, 1, h * scale, w * scale] in 0..1."""
        enlarged: Tensor = self._descriptor((latents[:, :, 0].float() / 255).to(self.dtype))
        return enlarged.unsqueeze(2), None

    def decoded_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        return 1, 3, frames, height * self.scale, width * self.scale

    def finished(self, decoded: Tensor) -> Tensor:
        return decoded[0].transpose(0, 1).float() * 2 - 1


@dataclass(frozen=True)
class Enlargement:
    """Work of an upscaler for one request: pictures of another size."""

    upscaler: Upscaler
    grid: TileGrid
    rank: int
    ranks: int
    size: tuple[int, int] | None
    """Height and width of the result; None: whatever the model makes."""

    @property
    def units(self) -> int:
        return TileRun.units(self.grid, self.ranks, 1)

    def run(self, chunks: Sequence[Tensor]) -> TileRun:
        """Begin with pixels, each [F, H, W, 3] uint8. Raises ValueError if they are not of the
        size that the tiles are for."""
        pixels = torch.cat([*chunks])
        if pixels.shape[:3] != self.grid.shape:
            raise ValueError(f"{tuple(pixels.shape)}: pixels of {self.grid.shape} were expected")
        latents = pixels.permute(3, 0, 1, 2).unsqueeze(0)
        options = {"seed": 0}
        return TileRun(
            *(self.upscaler, self.grid, latents, self.rank),
            ranks=self.ranks,
            chunks=1,
            options=options,
        )

    def fitted(self, pixels: Tensor) -> Tensor:
        """Resize [F, H, W, 3] uint8 to the result's size, by Lanczos."""
        if self.size is None or tuple(pixels.shape[1:3]) == self.size:
            return pixels
        frames = [np.asarray(resized(frame, *self.size)) for frame in pixels.cpu().numpy()]
        return torch.from_numpy(np.stack(frames))
