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

    @property
    def decoder_scale(self) -> int:
        return int(self._module.config.patch_size or 1)

    @property
    def live_values(self) -> float:
        """Those of four frames, and of the two that each convolution looks back to, before and
        after."""
        config = self._module.config
        per_channel = 97 if config.is_residual else 72
        width = config.decoder_base_dim or config.base_dim
        return per_channel * float(width) / self.decoder_scale**2

    def chunks(self, frames: int) -> int:
        return frames

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """The first chunk is one frame of the video; each other one is `frame_multiple` frames."""
        latents = self.module_latents(latents[:, :, chunk : chunk + 1])
        video, features = self._decode_frame(latents, carry)
        return self.finished(video), features

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        return self._decode_frame(latents[:, :, chunk : chunk + 1], carry)

    def tile_values(self, frames: int) -> tuple[int, int]:
        channels, frames = super().tile_values(frames)
        return channels * self.decoder_scale**2, frames

    def finished(self, decoded: Tensor) -> Tensor:
        if self.decoder_scale > 1:
            decoded = _unpatchify(decoded, patch_size=self.decoder_scale)
        return super().finished(decoded.clamp(-1, 1))

    def _decode_frame(self, latents: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Decode a latent frame of the module, [1, C, 1, h, w]."""
        module = self._module
        features = [None] * module._cached_conv_counts["decoder"] if carry is None else carry[:]
        video = module.decoder(
            module.post_quant_conv(latents),
            feat_cache=features,
            feat_idx=[0],
            first_chunk=carry is None,
        )
        return video, features

    # Multiplies by a reciprocal, like the reference, for equal rounding.

    def _normalized(self, latents: Tensor) -> Tensor:
        return (latents - self._mean.like(latents)) * (1.0 / self._std.like(latents))

    def _denormalized(self, latents: Tensor) -> Tensor:
        return latents / (1.0 / self._std.like(latents)) + self._mean.like(latents)
