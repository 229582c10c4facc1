"""Pictures by diffusers' AutoencoderKLQwenImage, a video VAE that is given one frame."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.models.vaes.pixels import to_uint8


class QwenImageVAE:
    """Latents are [B, C, h, w], of mean 0 and standard deviation 1 in each channel."""

    def __init__(self, vae: Any) -> None:
        self._vae = _for_one_frame(vae)
        config = vae.config
        for name in ("latents_mean", "latents_std"):
            if len(getattr(config, name)) != config.z_dim:
                raise InvalidCheckpoint(f"vae/config.json: {name} must have {config.z_dim} numbers")
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(config.latents_mean).view(shape).to(vae.device, vae.dtype)
        # A reciprocal that is divided by, as the reference has it: the rounding is the same.
        self._scale = 1.0 / torch.tensor(config.latents_std).view(shape).to(vae.device, vae.dtype)

    @property
    def channels(self) -> int:
        return int(self._vae.config.z_dim)

    @property
    def pixels_per_latent(self) -> int:
        """Along each side."""
        return int(2 ** len(self._vae.config.temperal_downsample))

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pixels [B, 3, H, W] in -1..1 -> latents, drawn from the posterior by `generator` (on the
        CPU), or without one its mode."""
        pixels = pixels.to(self._vae.device, self._vae.dtype).unsqueeze(2)
        posterior = self._vae.encode(pixels, return_dict=False)[0]
        latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
        return (latents[:, :, 0] - self._mean) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels [B, H, W, 3] uint8."""
        latents = latents.to(self._vae.dtype) / self._scale + self._mean
        decoded = self._vae.decode(latents.unsqueeze(2), return_dict=False)[0]
        return to_uint8(decoded[:, :, 0])


def _for_one_frame(vae: Any) -> Any:
    """The module without what only later frames need: about three times as fast.

    Causal convolutions look at earlier frames, which for the first one are zeros; so only the last
    slice of their weights in time counts.
    """
    causal: list[Any] = [each for each in vae.modules() if isinstance(each, QwenImageCausalConv3d)]
    for module in causal:
        if module._padding[4] > 0:  # frames before
            last: Tensor = module.weight[:, :, -1:].contiguous()
            module.weight = torch.nn.Parameter(last, requires_grad=False)
            module._padding = (*module._padding[:4], 0, 0)
    return vae
