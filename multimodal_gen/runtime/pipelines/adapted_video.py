"""What the video families share that run through the adapter for diffusers modules."""

from __future__ import annotations

import math
from typing import Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, size_of


class AdaptedVideoPipeline(ComposedPipeline):
    """A transformer and a VAE of diffusers; the VAE makes one latent frame of the first frame, and
    one of each `frame_multiple` that follow."""

    denoiser_name = "transformer"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._denoiser = self.wrapped_denoiser("transformer")
        self.vae: VAE = self.vae_class(self.components["vae"])

    @property
    def pixels_per_latent(self) -> int:
        """Along each side."""
        return self.vae.pixels_per_latent

    @property
    def frame_multiple(self) -> int:
        return self.vae.frame_multiple

    @property
    def size_multiple(self) -> int:
        """Pixels along each side of a token, and what the reference asks for."""
        token = self.pixels_per_latent * self.components["transformer"].config.patch_size
        return math.lcm(self.family.size_multiple, token)

    @property
    def latents_per_token(self) -> int:
        config = self.components["transformer"].config
        return int(config.patch_size**2 * (config.patch_size_t or 1))

    def grid(self, params: SamplingParams) -> tuple[int, int, int]:
        """Latents in time, down and across."""
        _, frames, height, width = self.vae.latent_shape(*size_of(params), params.num_frames)
        return frames, height, width

    def decode_chunks(self, params: SamplingParams) -> int:
        frames, _, _ = self.grid(params)
        return self.vae.chunks(frames)
