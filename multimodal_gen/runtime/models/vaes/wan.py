"""Encoding and decoding of videos by diffusers' AutoencoderKLWan."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders import autoencoder_kl_wan
from torch import Tensor

from multimodal_gen.runtime.models.vaes.pixels import to_uint8

_unpatchify: Any = autoencoder_kl_wan.unpatchify


class WanVideoCodec:
    """Equals the module's own encode and decode, with the scaling between VAE and denoiser.

    Decoding goes a latent frame at a time, and what it remembers between frames is the caller's:
    the causal convolutions look back two frames. The module keeps those in itself, so that two
    videos could not take turns; here they are a list that goes in and comes out.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        config = vae.config
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(config.latents_mean).view(shape).to(vae.device, vae.dtype)
        # A reciprocal that is divided by, as the reference has it: the rounding is the same.
        self._scale = 1.0 / torch.tensor(config.latents_std).view(shape).to(vae.device, vae.dtype)

    def encode(self, video: Tensor) -> Tensor:
        """Latents [1, C, T, h, w], the posterior's mode, of pixels [1, 3, F, H, W] in -1..1."""
        video = video.to(self._vae.device, self._vae.dtype)
        latents: Tensor = self._vae.encode(video, return_dict=False)[0].mode()
        return (latents - self._mean) * self._scale

    def decode_frame(
        self, latents: Tensor, at: int, features: list[Any] | None
    ) -> tuple[Tensor, list[Any]]:
        """Pixels [F, H, W, 3] uint8 of latent frame `at` of [1, C, T, h, w], and new features.

        The first latent frame (`features` None) is one frame of the video, each other four.
        """
        latents = latents[:, :, at : at + 1].to(self._vae.dtype) / self._scale + self._mean
        first = features is None
        kept = (
            [None] * self._vae._cached_conv_counts["decoder"] if features is None else features[:]
        )
        video = self._vae.decoder(
            self._vae.post_quant_conv(latents), feat_cache=kept, feat_idx=[0], first_chunk=first
        )
        if self._vae.config.patch_size is not None:
            video = _unpatchify(video, patch_size=self._vae.config.patch_size)
        return to_uint8(video[0].clamp(-1, 1).transpose(0, 1)), kept
