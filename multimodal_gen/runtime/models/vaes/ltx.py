"""Videos with diffusers' AutoencoderKLLTXVideo."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class LTXVAE(VideoVAE):
    """Decodes in one chunk, because the convolutions look ahead in time."""

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents are float32."""
        return self._normalized(self._posterior(pixels, generator).float())

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """Adds no noise before decoding, like the reference with `decode_timestep=0`. Some
        versions add noise inside, from torch's global generator: it is seeded for this video,
        and restored."""
        module = self._module
        latents = self._denormalized(latents).to(module.dtype)
        timestep = latents.new_zeros(1) if module.config.timestep_conditioning else None
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
