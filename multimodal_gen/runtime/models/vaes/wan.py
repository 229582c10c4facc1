"""Videos with diffusers' AutoencoderKLWan."""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders import autoencoder_kl_wan
from torch import Tensor

from multimodal_gen.runtime.models.vaes.constants import ChannelConstants
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE

_unpatchify: Any = autoencoder_kl_wan.unpatchify


class WanVAE(VideoVAE):
    """Equals the module's own encode and decode, with one latent frame per chunk.

    The causal convolutions look back two frames. The module stores those in itself, so two videos
    could not be interleaved; here they are a list that is carried.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._mean = ChannelConstants(module.config.latents_mean, 5)
        self._std = ChannelConstants(module.config.latents_std, 5)

    @property
    def channels(self) -> int:
        return int(self._module.config.z_dim)

    @property
    def pixels_per_latent(self) -> int:
        return int(self._module.config.scale_factor_spatial)

    @property
    def frame_multiple(self) -> int:
        return int(self._module.config.scale_factor_temporal)

    def chunks(self, frames: int) -> int:
        return frames

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """The first chunk is one frame of the video; each other one is `frame_multiple` frames."""
        module = self._module
        latents = self._denormalized(latents[:, :, chunk : chunk + 1].to(module.dtype))
        features = [None] * module._cached_conv_counts["decoder"] if carry is None else carry[:]
        video = module.decoder(
            module.post_quant_conv(latents),
            feat_cache=features,
            feat_idx=[0],
            first_chunk=carry is None,
        )
        if module.config.patch_size is not None:
            video = _unpatchify(video, patch_size=module.config.patch_size)
        return video[0].clamp(-1, 1).transpose(0, 1), features

    # Multiplies by a reciprocal, like the reference, for equal rounding.

    def _normalized(self, latents: Tensor) -> Tensor:
        return (latents - self._mean.like(latents)) * (1.0 / self._std.like(latents))

    def _denormalized(self, latents: Tensor) -> Tensor:
        return latents / (1.0 / self._std.like(latents)) + self._mean.like(latents)
