"""What the video families share that run through the adapter for diffusers modules."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.image import shrunk
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, size_of


class AdaptedVideoPipeline(ComposedPipeline):
    """A transformer and a VAE of diffusers; the VAE makes one latent frame of the first frame, and
    one of each `frame_multiple` that follow."""

    denoiser_name = "transformer"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._vae = self.components["vae"]
        self._denoiser = self.wrapped_denoiser("transformer")

    @property
    def pixels_per_latent(self) -> int:
        """Along each side."""
        return int(self._vae.spatial_compression_ratio)

    @property
    def frame_multiple(self) -> int:
        return int(self._vae.temporal_compression_ratio)

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
        assert params.num_frames is not None
        height, width = size_of(params)
        frames = (params.num_frames - 1) // self.frame_multiple + 1
        pixels = self.pixels_per_latent
        return frames, height // pixels, width // pixels

    @abstractmethod
    def show(self, latents: Tensor) -> Tensor:
        """Pixels [F, h, w, 3] uint8 of the VAE's latents [1, C, 1, h, w] of a first frame."""

    def preview_of(self, latents: Tensor) -> Tensor:
        """The first frame of the VAE's latents [1, C, T, h, w], small: [h, w, 3] uint8."""
        return self.show(shrunk(latents[:, :, 0]).unsqueeze(2))[0]
