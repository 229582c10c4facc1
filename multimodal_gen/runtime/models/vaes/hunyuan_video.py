"""Videos with diffusers' AutoencoderKLHunyuanVideo, in its own overlapping tiles of time."""

from __future__ import annotations

from torch import Tensor

from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class HunyuanVideoVAE(VideoVAE):
    """Equals the module's own decode, which splits longer videos in time and blends the tiles.

    A chunk needs the end of the previous one.
    """

    decodes_batches = True

    def chunks(self, frames: int) -> int:
        return 1 if frames <= self._longest else -(-(frames - 1) // self._stride)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        if self.chunks(latents.shape[2]) > 1:
            return self._decode_tile(latents, chunk, carry)
        latents = self._denormalized(latents.to(self._module.dtype))
        video = self._module.decode(latents, return_dict=False)[0]
        return video.transpose(1, 2).flatten(0, 1), None

    def _decode_tile(
        self, latents: Tensor, chunk: int, before: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode tile `chunk` of latents [1, C, T, h, w]; also returns its end."""
        module, start = self._module, chunk * self._stride
        tile = latents[:, :, start : start + self._longest + 1].to(module.dtype)
        video = module.decoder(module.post_quant_conv(self._denormalized(tile)))
        kept, blended = module.tile_sample_stride_num_frames, self._blended
        if before is not None:
            video = module.blend_t(before, video[:, :, 1:], blended)
        shown = video[0, :, : kept + (before is None)]
        return shown.transpose(0, 1), video[:, :, -blended:].clone()

    def _normalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents * factor

    def _denormalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents / factor

    @property
    def _longest(self) -> int:
        """Latent frames per tile."""
        return int(self._module.tile_sample_min_num_frames // self.frame_multiple)

    @property
    def _stride(self) -> int:
        """Latent frames from one tile to the next."""
        return int(self._module.tile_sample_stride_num_frames // self.frame_multiple)

    @property
    def _blended(self) -> int:
        """Frames that two tiles share."""
        module = self._module
        return int(module.tile_sample_min_num_frames - module.tile_sample_stride_num_frames)
