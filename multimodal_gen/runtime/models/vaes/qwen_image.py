"""Images with diffusers' AutoencoderKLQwenImage, a video VAE that gets one frame."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.vaes.constants import ChannelConstants
from multimodal_gen.runtime.models.vaes.image import image_values
from multimodal_gen.runtime.models.vaes.vae import VAE, Carry


class QwenImageVAE(VAE):
    """Latents have mean 0 and standard deviation 1 per channel."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        config = module.config
        for name in ("latents_mean", "latents_std"):
            if len(getattr(config, name)) != config.z_dim:
                raise InvalidCheckpoint(f"vae/config.json: {name} must have {config.z_dim} numbers")
        self._mean = ChannelConstants(config.latents_mean, 4)
        self._std = ChannelConstants(config.latents_std, 4)

    @classmethod
    def transform(cls, module: Any) -> Any:
        return _for_one_frame(module)

    @property
    def channels(self) -> int:
        return int(self._module.config.z_dim)

    @property
    def pixels_per_latent(self) -> int:
        return int(2 ** len(self._module.config.temperal_downsample))

    @property
    def live_values(self) -> float:
        config = self._module.config
        return image_values([config.base_dim * factor for factor in config.dim_mult])

    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._normalized(self._posterior(pixels.unsqueeze(2), generator)[:, :, 0])

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        latents = self._denormalized(latents.to(self._module.dtype)).unsqueeze(2)
        decoded = self._module.decode(latents, return_dict=False)[0]
        return decoded[:, :, 0], None

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        return self._module.decoder(self._module.post_quant_conv(latents)), None

    # Multiplies by a reciprocal, like the reference, for equal rounding.

    def _normalized(self, latents: Tensor) -> Tensor:
        return (latents - self._mean.like(latents)) * (1.0 / self._std.like(latents))

    def _denormalized(self, latents: Tensor) -> Tensor:
        return latents / (1.0 / self._std.like(latents)) + self._mean.like(latents)


def _for_one_frame(module: Any) -> Any:
    """Remove the parts that only later frames need, which is about three times as fast.

    Causal convolutions look at earlier frames, which are zeros for the first one, so only the last
    slice of their weights in time matters.
    """
    causal = (each for each in module.modules() if isinstance(each, QwenImageCausalConv3d))
    for part in causal:
        padding: Any = part._padding
        if padding[4] > 0:  # frames before
            last: Tensor = part.weight[:, :, -1:].contiguous()
            part.weight = torch.nn.Parameter(last, requires_grad=False)
            part._padding = (*padding[:4], 0, 0)
    return module
