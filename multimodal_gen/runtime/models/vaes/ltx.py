"""Videos with diffusers' AutoencoderKLLTXVideo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


@dataclass(frozen=True)
class DecodeNoise:
    """Noise that a decoder removes."""

    timestep: float
    scale: float
    """Share of noise in the latents."""
    generator: torch.Generator
    dtype: torch.dtype
    """In which it is drawn and added."""

    def added(self, latents: Tensor) -> Tensor:
        drawn = torch.randn(latents.shape, generator=self.generator, dtype=self.dtype)
        return (1 - self.scale) * latents.to(self.dtype) + self.scale * copied(
            drawn, latents.device
        )


class LTXVAE(VideoVAE):
    """Also for AutoencoderKLLTX2Video. Decodes in one chunk, because the convolutions look ahead in
    time."""

    @property
    def live_values(self) -> float:
        """Those of one frame."""
        config = self._module.config
        width = config.decoder_block_out_channels[0] / config.upsample_factor[0]
        return float(5 * width / config.patch_size**2)

    def decode_bytes(self, height: int, width: int, frames: int = 1) -> int:
        return super().decode_bytes(height, width) * (self.tile_values(frames)[1] + 1)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents are float32."""
        return self._normalized(self._posterior(pixels, generator).float())

    def decode(
        self,
        latents: Tensor,
        chunk: int = 0,
        carry: Carry = None,
        *,
        seed: int = 0,
        noise: DecodeNoise | None = None,
    ) -> tuple[Tensor, Carry]:
        """`noise` is for decoders that are told a noise level; without it, 0. Some versions add
        noise inside, from torch's global generator: it is seeded for this video, and restored."""
        options = {"seed": seed, "noise": noise}
        latents = self.module_latents(latents, **options)
        return self.finished(self.decode_tile(latents, chunk, carry, **options)[0]), None

    def module_latents(self, latents: Tensor, **options: Any) -> Tensor:
        latents, noise = self._denormalized(latents), options.get("noise")
        if self._module.config.timestep_conditioning and noise is not None:
            latents = noise.added(latents)
        return latents.to(self._module.dtype)

    def from_module(self, latents: Tensor) -> Tensor:
        """Convert the module's latents to the denoiser's: the inverse of `module_latents`."""
        factor: float = self._module.config.scaling_factor
        return self._normalized(latents.float()) * factor

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        module, noise, timestep = self._module, options.get("noise"), None
        if module.config.timestep_conditioning:
            timestep = latents.new_full((1,), noise.timestep if noise else 0.0, dtype=module.dtype)
        with torch.random.fork_rng([latents.device] if latents.is_cuda else []):
            torch.manual_seed(options["seed"])
            return module.decoder(latents, timestep), None

    def _normalized(self, latents: Tensor) -> Tensor:
        """Omits the scaling factor, as the reference does here."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def _denormalized(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        factor: float = self._module.config.scaling_factor
        return latents * std / factor + mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, [1, C, 1, 1, 1]."""
        mean, std = self._module.latents_mean, self._module.latents_std
        return mean.view(1, -1, 1, 1, 1).to(latents), std.view(1, -1, 1, 1, 1).to(latents)
