"""Videos with diffusers' AutoencoderKLHunyuanVideo15."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class HunyuanVideo15VAE(VideoVAE):
    """Decodes in one chunk: the middle of its decoder attends to all frames before."""

    @property
    def live_values(self) -> float:
        """Those of one frame."""
        return 10 * float(self._module.config.block_out_channels[0])

    def decode_bytes(self, height: int, width: int, frames: int = 1) -> int:
        return super().decode_bytes(height, width) * self.tile_values(frames)[1]

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        module, scale = self._module, self.module_scale
        kept = 1 - module.tile_overlap_factor
        sides = module.tile_sample_min_height, module.tile_sample_min_width
        down, across = (TileAxis.of_pixels(side, int(side * kept), scale) for side in sides)
        return None if down is None or across is None else (down, across)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        decoded, _ = self.decode_tile(self.module_latents(latents), chunk, carry)
        return decoded.transpose(1, 2).flatten(0, 1), None

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        return self._module.decoder(latents), None

    def _normalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents * factor

    def _denormalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return latents / factor
