"""What families of pictures share whose denoiser takes the VAE's latents as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.image import ImageVAE
from multimodal_gen.runtime.models.vaes.pictures import fit_image, fit_mask, shrink_mask
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, size_of
from multimodal_gen.runtime.stages.request_state import RequestState


class ImageLatentsPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, h, w]; it is an AutoencoderKL or an AutoencoderDC."""

    vae_class = ImageVAE

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.vae = ImageVAE(self.components["vae"])

    @property
    def latents_dtype(self) -> torch.dtype:
        """Of the latents between evaluations."""
        return self.context.dtype

    @property
    def pixels_per_latent(self) -> int:
        """Along each side."""
        return self.vae.pixels_per_latent

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        shape = (1, *self.vae.latent_shape(*size_of(params)))
        return torch.randn(shape, generator=generator, dtype=self.latents_dtype)

    def picture_latents(self, state: RequestState) -> Tensor:
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        return self.encode_picture(state, pixels)

    def encode_picture(self, state: RequestState, pixels: Tensor) -> Tensor:
        """Pixels [1, 3, H, W] in -1..1 -> latents, drawn from the posterior."""
        return self.vae.encode(pixels, state.generator).to(self.latents_dtype)

    def mask_latents(self, state: RequestState) -> Tensor:
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        mask = shrink_mask(mask, self.pixels_per_latent)
        return mask.to(self.context.device, self.latents_dtype)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        pixels, _ = self.vae.decode(latents)
        return pixels

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return self.vae.preview(x0)
