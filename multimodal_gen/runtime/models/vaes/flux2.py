"""Encoding and decoding of pictures by diffusers' AutoencoderKLFlux2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.image import for_decoding, scale_factor
from multimodal_gen.runtime.models.vaes.pixels import to_uint8

PATCH = 2
"""Latents of the VAE along each side of one that the denoiser knows."""


class Flux2VAE:
    """The denoiser's latents [B, 4 * C, h, w] are 2 x 2 of the VAE's each, normalised by the mean
    and deviation that its batch norm has learned."""

    def __init__(self, vae: Any) -> None:
        self._vae = for_decoding(vae)
        norm = vae.bn
        self._mean: Tensor = norm.running_mean.view(1, -1, 1, 1)
        self._std: Tensor = (norm.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).sqrt()

    @property
    def pixels_per_token(self) -> int:
        """Along each side."""
        return PATCH * scale_factor(self._vae)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in -1..1 -> latents: the mode of the posterior."""
        pixels = pixels.to(self._vae.device, self._vae.dtype)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        latents = F.pixel_unshuffle(self._vae.encode(pixels, return_dict=False)[0].mode(), PATCH)
        return (latents - self._mean) / self._std

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> [B, H, W, 3] uint8, untiled."""
        latents = latents.to(self._vae.dtype) * self._std + self._mean
        latents = F.pixel_shuffle(latents, PATCH).contiguous(memory_format=torch.channels_last)
        return to_uint8(self._vae.decode(latents, return_dict=False)[0])
