"""Decoding of videos by diffusers' AutoencoderKLCogVideoX, two latent frames at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.pixels import to_uint8


class CogVideoXDecoder:
    """Equals the module's own decode; what its convolutions look back at goes in and comes out."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._together: int = vae.num_latent_frames_batch_size

    def parts(self, frames: int) -> int:
        """Pieces that so many latent frames are decoded in."""
        return max(frames // self._together, 1)

    def part(
        self, latents: Tensor, at: int, features: dict[str, Any] | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Pixels [F, H, W, 3] uint8 of part `at` of latents [1, T, C, h, w], and new features.

        The first part (`features` None) has the frame that is left over.
        """
        left_over = latents.shape[1] % self._together
        start = self._together * at + (left_over if at else 0)
        end = self._together * (at + 1) + left_over
        frames = latents[:, start:end].to(self._vae.dtype).transpose(1, 2)
        frames = 1 / self._vae.config.scaling_factor * frames
        if self._vae.post_quant_conv is not None:
            frames = self._vae.post_quant_conv(frames)
        video, features = self._vae.decoder(frames, conv_cache=features)
        assert features is not None
        return to_uint8(video[0].transpose(0, 1)), features
