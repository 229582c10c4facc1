"""Images with diffusers' AutoencoderKLFlux2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.image import image_values, square_tiles
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.vae import VAE

PATCH = 2
"""Latents of the module per side of one denoiser latent."""


class Flux2VAE(VAE):
    """Each of the denoiser's latents [B, 4 * C, h, w] is 2 x 2 of the module's, normalized by the
    mean and deviation that its batch norm has learned."""

    @classmethod
    def transform(cls, module: Any) -> Any:
        """Use channels last, which is the fastest layout for convolutions."""
        return module.to(memory_format=torch.channels_last)

    @property
    def channels(self) -> int:
        return PATCH**2 * super().channels

    @property
    def pixels_per_latent(self) -> int:
        return PATCH * self.module_scale

    @property
    def module_scale(self) -> int:
        return int(2 ** (len(self._module.config.block_out_channels) - 1))

    @property
    def live_values(self) -> float:
        config = self._module.config
        return image_values(config.get("decoder_block_out_channels") or config.block_out_channels)

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        return square_tiles(self._module, self.module_scale)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        pixels = copied(pixels, self._module.device, self._module.dtype)
        if not self.is_tiled(*pixels.shape[-2:]):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return super().encode(pixels, generator)

    def _normalized(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics()
        return (F.pixel_unshuffle(latents, PATCH) - mean) / std

    def _denormalized(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics()
        latents = F.pixel_shuffle(latents * std + mean, PATCH)
        return latents.contiguous(memory_format=torch.channels_last)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, [1, 4 * C, 1, 1]."""
        norm, epsilon = self._module.bn, self._module.config.batch_norm_eps
        variance: Tensor = norm.running_var.view(1, -1, 1, 1)
        return norm.running_mean.view(1, -1, 1, 1), (variance + epsilon).sqrt()
