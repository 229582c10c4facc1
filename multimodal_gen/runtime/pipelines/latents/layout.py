"""How the denoiser takes latents: their shape, and the tokens that it makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.input_images import shrink_mask
from multimodal_gen.runtime.models.vaes.vae import VAE


class LatentLayout:
    """As the VAE has them: [1, C, h, w], of a video [1, C, T, h, w]."""

    def __init__(
        self,
        vae: VAE,
        context: RankContext,
        *,
        dtype: torch.dtype | None = None,
        patch: tuple[int, ...] = (1, 1),
        multiple: int = 1,
    ) -> None:
        """`dtype` is that between evaluations, the model's unless given; `patch` the latents of a
        token along each dimension; `multiple` what sizes are a multiple of besides, in pixels."""
        self.vae = vae
        self.dtype = dtype or context.dtype
        self.device = context.device
        self._patch = patch
        self._multiple = multiple

    @property
    def size_multiple(self) -> int:
        """Pixels that width and height must be a multiple of."""
        token = self.vae.pixels_per_latent * math.lcm(*self._patch[-2:])
        return math.lcm(self._multiple, token)

    def shape(self, params: SamplingParams) -> tuple[int, ...]:
        """The VAE's latents without the batch: [C, h, w] or [C, T, h, w]."""
        return self.vae.latent_shape(*size_of(params), params.num_frames)

    def frames(self, params: SamplingParams) -> int:
        """Latent frames that are decoded."""
        return self.shape(params)[-3] if len(self.shape(params)) == 4 else 1

    def grid(self, params: SamplingParams) -> tuple[int, ...]:
        """Tokens down and across, of a video in time before."""
        sides = zip(self.shape(params)[1:], self._patch, strict=True)
        return tuple(side // patch for side, patch in sides)

    def tokens(self, params: SamplingParams) -> int:
        """Number of tokens that the denoiser makes of a row's latents."""
        return math.prod(self.grid(params))

    def noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        """Unit normal noise [1, ...], drawn as diffusers does."""
        shape = (1, *self.shape(params))
        noise = torch.randn(shape, generator=generator, dtype=self.dtype)
        return self.pack(noise).to(self.device)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels [1, 3, ..., H, W] in -1..1 to latents, as `VAE.encode` does."""
        return self.pack(self.vae.encode(pixels, generator)).to(self.dtype)

    def mask(self, mask: Tensor, params: SamplingParams) -> Tensor:
        """A mask [1, 1, H, W] of pixels as one of latents."""
        return shrink_mask(mask, self.vae.pixels_per_latent).to(self.device, self.dtype)

    def pack(self, latents: Tensor) -> Tensor:
        """The VAE's latents [B, C, ...] as the denoiser takes them."""
        return latents

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        """Undo `pack`."""
        return latents


def size_of(params: SamplingParams) -> tuple[int, int]:
    """Height and width, in pixels."""
    assert params.width is not None
    assert params.height is not None
    return params.height, params.width
