"""Encoding of a first frame and decoding of videos by diffusers' AutoencoderKLLTXVideo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.vaes.pixels import to_uint8


class LTXVideoCodec:
    """Latents are [1, C, T, h, w], as the denoiser knows them but not yet tokens."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        shape = (1, -1, 1, 1, 1)
        self._mean: Tensor = vae.latents_mean.view(shape)
        self._std: Tensor = vae.latents_std.view(shape)

    def decode(self, latents: Tensor, seed: int = 0) -> Tensor:
        """Pixels [F, H, W, 3] uint8, in one piece: the convolutions look ahead in time.

        No noise is added before, as with the reference's `decode_timestep=0`. Some versions add
        noise inside, by torch's global generator: it is seeded for this video, and put back.
        """
        vae, mean, std = self._vae, self._mean.to(latents), self._std.to(latents)
        latents = (latents * std / vae.config.scaling_factor + mean).to(vae.dtype)
        timestep = latents.new_zeros(1) if vae.config.timestep_conditioning else None
        with torch.random.fork_rng([latents.device] if latents.is_cuda else []):
            torch.manual_seed(seed)
            video = vae.decode(latents, timestep, return_dict=False)[0]
        return to_uint8(video[0].transpose(0, 1))

    def encode_frame(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Pixels [1, 3, H, W] in -1..1 -> float32 latents with T = 1, drawn from the posterior."""
        pixels = pixels.to(self._vae.device, self._vae.dtype).unsqueeze(2)
        latents = self._vae.encode(pixels, return_dict=False)[0].sample(generator).float()
        # Without the scaling factor, which the reference leaves out here.
        normalized: Tensor = (latents - self._mean.to(latents)) / self._std.to(latents)
        return normalized
