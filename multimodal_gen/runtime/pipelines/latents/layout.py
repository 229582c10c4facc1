"""Layout of latents for the denoiser: their shape and their tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.input_images import shrink_mask
from multimodal_gen.runtime.models.vaes.vae import VAE


class LatentLayout:
    """The VAE's layout: [1, C, h, w], for a video [1, C, T, h, w]."""

    def __init__(
        self,
        vae: VAE,
        context: RankContext,
        *,
        dtype: torch.dtype | None = None,
        patch: tuple[int, ...] = (1, 1),
        multiple: int = 1,
    ) -> None:
        """`dtype` is that between evaluations, by default the model's; `patch` the latents of a
        token along each dimension; `multiple` an additional multiple for sizes, in pixels."""
        self.vae = vae
        self.dtype = dtype or context.dtype
        self.device = context.device
        self._patch = patch
        self._multiple = multiple

    @property
    def size_multiple(self) -> int:
        """Multiple that width and height must be of, in pixels."""
        token = self.vae.pixels_per_latent * math.lcm(*self._patch[-2:])
        return math.lcm(self._multiple, token)

    def shape(self, params: SamplingParams) -> tuple[int, ...]:
        """Shape of the VAE's latents without the batch: [C, h, w] or [C, T, h, w]."""
        return self.vae.latent_shape(*size_of(params), params.num_frames)

    def frames(self, params: SamplingParams) -> int:
        """Number of latent frames that are decoded."""
        return self.shape(params)[-3] if len(self.shape(params)) == 4 else 1

    def grid(self, params: SamplingParams) -> tuple[int, ...]:
        """Tokens down and across, for a video preceded by those in time."""
        sides = zip(self.shape(params)[1:], self._patch, strict=True)
        return tuple(side // patch for side, patch in sides)

    def tokens(self, params: SamplingParams) -> int:
        """Number of tokens per row of latents."""
        return math.prod(self.grid(params))

    def noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        """Unit normal noise [1, ...], drawn as diffusers does."""
        shape = (1, *self.shape(params))
        noise = torch.randn(shape, generator=generator, dtype=self.dtype)
        return copied(self.pack(noise), self.device)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode pixels [1, 3, ..., H, W] in -1..1 as latents, like `VAE.encode`."""
        return self.pack(self.vae.encode(pixels, generator)).to(self.dtype)

    def mask(self, mask: Tensor, params: SamplingParams) -> Tensor:
        """Convert a mask [1, 1, H, W] of pixels to one of latents."""
        return copied(shrink_mask(mask, self.vae.pixels_per_latent), self.device, self.dtype)

    def pack(self, latents: Tensor) -> Tensor:
        """Convert the VAE's latents [B, C, ...] to the denoiser's layout."""
        return latents

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        """Undo `pack`."""
        return latents


def size_of(params: SamplingParams) -> tuple[int, int]:
    """Height and width, in pixels."""
    assert params.width is not None
    assert params.height is not None
    return params.height, params.width
