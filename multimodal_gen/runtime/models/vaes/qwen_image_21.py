"""Images with diffusers' AutoencoderKLQwenImage21, whose pixels have an alpha channel."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders import autoencoder_kl_qwenimage21
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.qwen_image import QwenImageVAE
from multimodal_gen.runtime.models.vaes.vae import Carry

_unpatchify: Any = autoencoder_kl_qwenimage21._unpatchify
_COLOURS = 3


class QwenImage21VAE(QwenImageVAE):
    """Input images are opaque, and of an output only the colours are taken."""

    @classmethod
    def transform(cls, module: Any) -> Any:
        return module

    @property
    def pixels_per_latent(self) -> int:
        return int(self._module.spatial_compression_ratio)

    @property
    def live_values(self) -> float:
        """Those of the last block of the decoder, which adds its repeated input."""
        config = self._module.config
        return 11.0 * float(config.decoder_base_dim or config.base_dim)

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        alpha = self._module.config.in_channels - pixels.shape[1]
        return super().encode(F.pad(pixels, (0, 0, 0, 0, 0, alpha), value=1.0), generator)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        decoded, _ = self.decode_tile(self.module_latents(latents), chunk, carry)
        return decoded[:, :, 0], None

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        module = self._module
        decoded = module.decoder(module.post_quant_conv(latents), first_chunk=True)
        if (patch := module.config.patch_size) is not None:
            decoded = _unpatchify(decoded, patch_size=patch)
        return decoded[:, :_COLOURS], None
