"""Videos with diffusers' AutoencoderKLHunyuanVideo, in its own overlapping tiles of time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class HunyuanVideoVAE(VideoVAE):
    """Equals the module's own decode, which splits longer videos in time and blends the tiles."""

    decodes_batches = True

    @property
    def live_values(self) -> float:
        """Those of one frame."""
        return 10 * float(self._module.config.block_out_channels[0])

    def decode_bytes(self, height: int, width: int, frames: int = 1) -> int:
        axis = self.time_axis(frames)
        _, together = self.tile_values(frames if axis is None else axis.tile + axis.lead)
        return int(super().decode_bytes(height, width) * (together + 0.2))

    def time_axis(self, frames: int) -> TileAxis | None:
        module, scale = self._module, self.frame_multiple
        tile, stride = module.tile_sample_min_num_frames, module.tile_sample_stride_num_frames
        if frames <= tile // scale:
            return None
        return TileAxis(tile // scale, stride // scale, scale, tile - stride, lead=1)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """Videos that are longer than a tile are decoded by `decode_tile`."""
        decoded, _ = self.decode_tile(self.module_latents(latents), chunk, carry)
        return decoded.transpose(1, 2).flatten(0, 1), None

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        return self._module.decoder(self._module.post_quant_conv(latents)), None

    def _normalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents * factor

    def _denormalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents / factor
