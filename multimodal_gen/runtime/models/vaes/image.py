"""Images with diffusers' AutoencoderKL and AutoencoderDC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.constants import ChannelConstants
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.tiles.tiled_decoder import overlapping
from multimodal_gen.runtime.models.vaes.vae import VAE


class ImageVAE(VAE):
    """Uses channels last, which is the fastest layout for convolutions."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        mean, std = module.config.get("latents_mean"), module.config.get("latents_std")
        self._statistics = (
            None
            if mean is None or std is None
            else (ChannelConstants(mean, 4), ChannelConstants(std, 4))
        )

    @classmethod
    def transform(cls, module: Any) -> Any:
        return module.to(memory_format=torch.channels_last)

    @property
    def pixels_per_latent(self) -> int:
        config = self._module.config
        blocks = config.get("block_out_channels") or config.encoder_block_out_channels
        return int(2 ** (len(blocks) - 1))

    @property
    def live_values(self) -> float:
        config = self._module.config
        widths = config.get("block_out_channels") or config.decoder_block_out_channels
        return image_values(widths)

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        module = self._module
        if not hasattr(module, "tile_sample_min_size"):  # AutoencoderDC
            return super().tile_axes
        return square_tiles(module, self.module_scale)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        pixels = copied(pixels, self._module.device, self._module.dtype)
        if not self.is_tiled(*pixels.shape[-2:]):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return super().encode(pixels, generator).contiguous()

    def _normalized(self, latents: Tensor) -> Tensor:
        """Uses the order of operations of diffusers' pipelines."""
        factor: float = self._module.config.scaling_factor
        if self._statistics is not None:
            mean, std = self._statistics
            return (latents - mean.like(latents)) * factor / std.like(latents)
        shift: float | None = self._module.config.get("shift_factor")
        return (latents if shift is None else latents - shift) * factor

    def _denormalized(self, latents: Tensor) -> Tensor:
        return self._unscaled(latents).contiguous(memory_format=torch.channels_last)

    def _unscaled(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        if self._statistics is not None:
            mean, std = self._statistics
            return latents * std.like(latents) / factor + mean.like(latents)
        shift: float | None = self._module.config.get("shift_factor")
        latents = latents / factor
        return latents if shift is None else latents + shift


def image_values(widths: Sequence[int]) -> float:
    """Numbers that are alive at once in a decoder of these widths, per pixel. The first block of a
    level is given the width of the level below, and has three tensors of it at once."""
    below = [*widths[1:], widths[-1]]
    return max(3.0 * width / 4.0**level for level, width in enumerate(below))


def square_tiles(module: Any, scale: int) -> tuple[TileAxis, TileAxis] | None:
    """Tiles of an AutoencoderKL or AutoencoderKLFlux2, of the size that it was trained with."""
    tile = module.tile_sample_min_size
    if not isinstance(tile, int):
        return None
    axis = overlapping(tile, module.tile_latent_min_size, module.tile_overlap_factor, scale)
    return None if axis is None else (axis, axis)
