"""Videos with diffusers' AutoencoderKLLTXVideo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
        return (1 - self.scale) * latents.to(self.dtype) + self.scale * drawn.to(latents.device)


class LTXVAE(VideoVAE):
    """Decodes in one chunk, because the convolutions look ahead in time."""

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
        module, timestep = self._module, None
        latents = self._denormalized(latents)
        if module.config.timestep_conditioning:
            timestep = latents.new_full((1,), noise.timestep if noise else 0.0, dtype=module.dtype)
            latents = noise.added(latents) if noise else latents
        latents = latents.to(module.dtype)
        with torch.random.fork_rng([latents.device] if latents.is_cuda else []):
            torch.manual_seed(seed)
            video = module.decode(latents, timestep, return_dict=False)[0]
        return video[0].transpose(0, 1), None

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
