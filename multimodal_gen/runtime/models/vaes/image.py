"""Images with diffusers' AutoencoderKL and AutoencoderDC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.constants import ChannelConstants
from multimodal_gen.runtime.models.vaes.vae import VAE


class ImageVAE(VAE):
    """Untiled, in channels last, which is the fastest layout for convolutions."""

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

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        pixels = pixels.to(self._module.device, self._module.dtype)
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
