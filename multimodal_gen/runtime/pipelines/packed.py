"""What families share whose denoiser takes 2 x 2 VAE latents as one token: FLUX.1, Qwen-Image."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.models.vaes.pictures import fit_image, fit_mask, shrink_mask
from multimodal_gen.runtime.pipelines.composed_pipeline import size_of
from multimodal_gen.runtime.pipelines.flow import FlowPipeline, falling_sigmas, linear_shift
from multimodal_gen.runtime.pipelines.true_cfg import TrueCfgPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

PATCH = 2
"""Latents along each side of a token."""


class PackedPipeline(TrueCfgPipeline, FlowPipeline):
    """Latents are tokens [1, h * w, 4 * C]; flow matching whose shift follows from their number;
    guided only where a negative prompt is given."""

    channels_at = 2

    @property
    @abstractmethod
    def pixels_per_latent(self) -> int:
        """Along each side."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """C of the VAE."""

    @abstractmethod
    def encode_picture(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pixels [1, 3, H, W] in -1..1 -> latents [1, C, 2h, 2w], drawn from the posterior, or
        without a generator its mode."""

    @property
    def size_multiple(self) -> int:
        """Pixels along each side of a token."""
        return PATCH * self.pixels_per_latent

    def initial_noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        height, width = (PATCH * side for side in self.grid(params))
        shape = (1, self.latent_channels, height, width)
        return pack(torch.randn(shape, generator=generator, dtype=self.context.dtype))

    def schedule(self, params: SamplingParams) -> dict[str, Any]:
        height, width = self.grid(params)
        mu = linear_shift(self.scheduler_config, height * width)
        return {"sigmas": falling_sigmas(params), "mu": mu}

    def picture_latents(self, state: RequestState) -> Tensor:
        pixels = fit_image(state.pictures["image"], *size_of(state.params))
        return pack(self.encode_picture(pixels, state.generator)).to(self.context.dtype)

    def mask_latents(self, state: RequestState) -> Tensor:
        mask = fit_mask(state.pictures["mask"], *size_of(state.params))
        latents = shrink_mask(mask, self.pixels_per_latent).expand(-1, self.latent_channels, -1, -1)
        return pack(latents).to(self.context.device, self.context.dtype)

    def grids(self, state: RequestState) -> tuple[tuple[int, int], ...]:
        """Tokens down and across of what is made, and of pictures that are seen."""
        return (self.grid(state.params),)

    def grid(self, params: SamplingParams) -> tuple[int, int]:
        """Tokens down and across."""
        height, width = size_of(params)
        return height // self.size_multiple, width // self.size_multiple


def pack(latents: Tensor) -> Tensor:
    """[B, C, 2h, 2w] -> [B, h * w, 4C]."""
    # [B, C, h, 2, w, 2]
    tokens: Tensor = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return tokens.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h * w, 4C] -> [B, C, 2h, 2w]."""
    # [B, h, w, C, 2, 2]
    patches: Tensor = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, grid)
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
