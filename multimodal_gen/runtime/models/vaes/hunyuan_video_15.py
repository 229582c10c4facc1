"""Videos with diffusers' AutoencoderKLHunyuanVideo15."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.hunyuan_video import HunyuanVideoVAE
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.vae import Carry


class HunyuanVideo15VAE(HunyuanVideoVAE):
    """Decodes all frames at once: the middle of its decoder attends to all frames before."""

    decodes_batches = False

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        module, scale = self._module, self.module_scale
        kept = 1 - module.tile_overlap_factor
        sides = module.tile_sample_min_height, module.tile_sample_min_width
        down, across = (TileAxis.of_pixels(side, int(side * kept), scale) for side in sides)
        return None if down is None or across is None else (down, across)

    def time_axis(self, frames: int) -> TileAxis | None:
        return None

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        return self._module.decoder(latents), None
