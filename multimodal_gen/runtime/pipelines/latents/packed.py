"""Latents packed 2 x 2 per token: FLUX.1, Qwen-Image."""

from __future__ import annotations

from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.input_images import shrink_mask
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout

PATCH = 2
"""Latents per side of a token."""


class PackedLatents(LatentLayout):
    """Tokens [1, h * w, 4 * C], from VAE latents [1, C, 2h, 2w]."""

    def __init__(self, vae: VAE, context: RankContext) -> None:
        super().__init__(vae, context, patch=(PATCH, PATCH))

    def mask(self, mask: Tensor, params: SamplingParams) -> Tensor:
        latents = shrink_mask(mask, self.vae.pixels_per_latent)
        tokens = self.pack(latents.expand(-1, self.vae.channels, -1, -1))
        return copied(tokens, self.device, self.dtype)

    def pack(self, latents: Tensor) -> Tensor:
        # [B, C, h, 2, w, 2]
        tokens: Tensor = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
        return tokens.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        # [B, h, w, C, 2, 2]
        patches: Tensor = latents.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, self.grid(params))
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
