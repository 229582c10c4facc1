"""What families of pictures share whose denoiser takes the VAE's latents as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.image import (
    decode_image,
    decode_preview,
    encode_image,
    for_decoding,
    scale_factor,
)
from multimodal_gen.runtime.models.vaes.pictures import fit_image, fit_mask, shrink_mask
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline, size_of
from multimodal_gen.runtime.pipelines.request_state import RequestState


class ImageLatentsPipeline(ComposedPipeline):
    """Latents are the VAE's own, [1, C, h, w]; it is an AutoencoderKL or an AutoencoderDC."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.vae = for_decoding(self.components["vae"])

    @property
    def latents_dtype(self) -> torch.dtype:
        """Of the latents between evaluations."""
        return self.context.dtype

    @property
    def pixels_per_latent(self) -> int:
        """Along each side."""
        return scale_factor(self.vae)

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        height, width = (side // self.pixels_per_latent for side in size_of(params))
        shape = (1, self.vae.config.latent_channels, height, width)
        return torch.randn(shape, generator=generator, dtype=self.latents_dtype)

    def picture_latents(self, state: RequestState) -> Tensor:
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        return self.encode_picture(state, pixels)

    def encode_picture(self, state: RequestState, pixels: Tensor) -> Tensor:
        """Pixels [1, 3, H, W] in -1..1 -> latents, drawn from the posterior."""
        return encode_image(self.vae, pixels, state.generator).to(self.latents_dtype)

    def mask_latents(self, state: RequestState) -> Tensor:
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        mask = shrink_mask(mask, self.pixels_per_latent)
        return mask.to(self.context.device, self.latents_dtype)

    def decode(self, states: Sequence[RequestState], latents: Tensor, chunk: int) -> Tensor:
        return decode_image(self.vae, latents)

    def preview(self, params: SamplingParams, x0: Tensor) -> Tensor:
        return decode_preview(self.vae, x0)
