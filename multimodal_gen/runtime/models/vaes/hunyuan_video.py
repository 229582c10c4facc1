"""Decoding of videos by diffusers' AutoencoderKLHunyuanVideo, in its own overlapping tiles."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.pixels import to_uint8


class HunyuanVideoDecoder:
    """Equals the module's own decode, which cuts longer videos in time, and blends the tiles.

    A tile needs the end of the one before, which goes in and comes out.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        ratio = vae.temporal_compression_ratio
        self._longest = vae.tile_sample_min_num_frames // ratio
        self._stride = vae.tile_sample_stride_num_frames // ratio
        self._kept = vae.tile_sample_stride_num_frames
        self._blended = vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames

    def tiles(self, frames: int) -> int:
        """Pieces that so many latent frames are decoded in."""
        return 1 if frames <= self._longest else -(-(frames - 1) // self._stride)

    def whole(self, latents: Tensor) -> Tensor:
        """Pixels [B * F, H, W, 3] uint8 of latents [B, C, T, h, w] that are one tile."""
        video = self._vae.decode(self._unscaled(latents), return_dict=False)[0]
        return to_uint8(video.transpose(1, 2).flatten(0, 1))

    def tile(self, latents: Tensor, at: int, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pixels [F, H, W, 3] uint8 of tile `at` of latents [1, C, T, h, w], and its end.

        `before` is the end of the tile before, None for the first.
        """
        start = at * self._stride
        part = self._unscaled(latents[:, :, start : start + self._longest + 1])
        video = self._vae.decoder(self._vae.post_quant_conv(part))
        if before is not None:
            video = self._vae.blend_t(before, video[:, :, 1:], self._blended)
        kept = video[0, :, : self._kept + (before is None)]
        return to_uint8(kept.transpose(0, 1)), video[:, :, -self._blended :].clone()

    def _unscaled(self, latents: Tensor) -> Tensor:
        scale: float = self._vae.config.scaling_factor
        return latents.to(self._vae.dtype) / scale
