"""Videos with diffusers' AutoencoderKLCogVideoX, two latent frames per chunk."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.tiles.tiled_decoder import overlapping
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE


class CogVideoXVAE(VideoVAE):
    """Equals the module's own decode; the past frames that its convolutions use are carried."""

    @property
    def pixels_per_latent(self) -> int:
        return int(2 ** (len(self._module.config.block_out_channels) - 1))

    @property
    def frame_multiple(self) -> int:
        return int(self._module.config.temporal_compression_ratio)

    @property
    def live_values(self) -> float:
        """Those of the eight frames of a chunk, and of the past ones that each convolution uses."""
        return 180 * float(self._module.config.block_out_channels[0])

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        module, scale = self._module, self.module_scale
        down, across = (
            overlapping(
                getattr(module, f"tile_sample_min_{side}"),
                getattr(module, f"tile_latent_min_{side}"),
                getattr(module, f"tile_overlap_factor_{side}"),
                scale,
            )
            for side in ("height", "width")
        )
        return None if down is None or across is None else (down, across)

    def chunks(self, frames: int) -> int:
        return max(frames // self._together, 1)

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """The first chunk includes the extra frame."""
        video, features = self.decode_tile(self.module_latents(latents), chunk, carry)
        return self.finished(video), features

    def tile_values(self, frames: int) -> tuple[int, int]:
        """An odd number of latent frames begins with one that is a frame of the video."""
        odd = frames % self._together
        return 3, frames * self.frame_multiple if not odd else super().tile_values(frames)[1]

    def decode_tile(
        self, latents: Tensor, chunk: int, carry: Carry, **options: Any
    ) -> tuple[Tensor, Carry]:
        module = self._module
        left_over = latents.shape[2] % self._together
        start = self._together * chunk + (left_over if chunk else 0)
        end = self._together * (chunk + 1) + left_over
        frames = latents[:, :, start:end]
        if module.post_quant_conv is not None:
            frames = module.post_quant_conv(frames)
        video, features = module.decoder(frames, conv_cache=carry)
        assert features is not None
        return video, features

    def _normalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return factor * latents

    def _denormalized(self, latents: Tensor) -> Tensor:
        factor: float = self._module.config.scaling_factor
        return 1 / factor * latents

    @property
    def _together(self) -> int:
        """Latent frames per chunk."""
        return int(self._module.num_latent_frames_batch_size)
