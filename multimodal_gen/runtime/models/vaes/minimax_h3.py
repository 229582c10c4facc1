"""Videos with diffusers' AutoencoderKLMiniMaxH3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.vaes.constants import ChannelConstants
from multimodal_gen.runtime.models.vaes.input_images import InputImage
from multimodal_gen.runtime.models.vaes.pixels import to_uint8
from multimodal_gen.runtime.models.vaes.tiles.geometry import TileAxis
from multimodal_gen.runtime.models.vaes.vae import Carry, VideoVAE, shrunk

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pixels in 0..1, as this module has them: those of ImageNet."""
_SEED = 42
"""For the posterior of what is encoded, whatever the request's seed."""
_REMAINDER = 2
"""Latent frames after the last whole clip."""


class MiniMaxH3VAE(VideoVAE):
    """Equals the module's own encode and decode, which have tiles of their own, with a clip per
    chunk. Consecutive clips overlap: the end of each is carried to the next one."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._mean = ChannelConstants(module.config.latents_mean, 5)
        self._std = ChannelConstants(module.config.latents_std, 5)
        self._pixel_mean = ChannelConstants(_MEAN, 5)
        self._pixel_std = ChannelConstants(_STD, 5)

    @property
    def frame_multiple(self) -> int:
        return int(self._module.config.clip_length)

    @property
    def clip(self) -> int:
        """Latent frames of a clip; a video has as many frames more than whole clips."""
        return int(self._module.tokens_chunk_size)

    @property
    def live_values(self) -> float:
        """Those of the tiles' pixels, and of the frames that they are joined to."""
        module = self._module
        frames = (module.tokens_chunk_size + module.token_overlap) * self._frames_per_latent
        return float(4 * 3 * frames)

    @property
    def _frames_per_latent(self) -> int:
        return int(self._module.temporal_compression_ratio)

    @property
    def tile_axes(self) -> tuple[TileAxis, TileAxis] | None:
        """None: the module's own are part of what it makes."""
        return None

    def latent_shape(self, height: int, width: int, frames: int | None = None) -> tuple[int, ...]:
        assert frames is not None
        clips = (frames - self.clip) // self.frame_multiple
        scale = self.pixels_per_latent
        return self.channels, clips * self.clip + _REMAINDER, height // scale, width // scale

    # -- pixels to latents

    def encode_frames(self, frames: InputImage) -> Tensor:
        """Latents [1, C, T, h, w] in float32 of a picture or video [F, H, W, 3] uint8: they are
        drawn, and rounded to float16, as the model was trained on."""
        pixels = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None]
        pixels = copied(pixels, self._module.device).float().div(255.0)
        pixels = (pixels - self._pixel_mean.like(pixels)) / self._pixel_std.like(pixels)
        posterior = self._module.encode(pixels, return_dict=False)[0]
        latents: Tensor = posterior.sample(generator=torch.Generator().manual_seed(_SEED))
        return self._normalized(latents.to(torch.float16).float())

    # -- latents to pixels

    def chunks(self, frames: int) -> int:
        return (frames - _REMAINDER) // self.clip

    def decode(
        self, latents: Tensor, chunk: int = 0, carry: Carry = None, *, seed: int = 0
    ) -> tuple[Tensor, Carry]:
        """Each chunk is `frame_multiple` frames; the last one has what follows it too."""
        module, start = self._module, chunk * self.clip
        decoded = self._clip(latents[:, :, start : start + self.clip + module.token_overlap])
        count, dropped = self.clip * self._frames_per_latent, module.frame_pre_padding
        frames, following = (
            part[:, :, dropped:] for part in (decoded[:, :, :count], decoded[:, :, count:])
        )
        if carry is not None:
            frames = module._blend(carry, frames, module.frame_overlap, dim=-3)
        if chunk == self.chunks(latents.shape[2]) - 1:
            return self.finished(torch.cat((frames, following), dim=2)), None
        return self.finished(frames), following

    def finished(self, decoded: Tensor) -> Tensor:
        decoded = decoded.float()
        pixels = decoded * self._pixel_std.like(decoded) + self._pixel_mean.like(decoded)
        return super().finished(pixels * 2 - 1)

    def preview(self, latents: Tensor) -> Tensor:
        decoded = self._clip(shrunk(latents[:, :, 0]).unsqueeze(2))
        return to_uint8(self.finished(decoded[:, :, -1:]))[0]

    def _clip(self, latents: Tensor) -> Tensor:
        """Decoder's output for a few latent frames."""
        dtype = self._module.post_quant_conv.weight.dtype
        decoded: Tensor = self._module._decode_clip(self._denormalized(latents).to(dtype))
        return decoded

    def _normalized(self, latents: Tensor) -> Tensor:
        return (latents - self._mean.like(latents)) / self._std.like(latents)

    def _denormalized(self, latents: Tensor) -> Tensor:
        return latents * self._std.like(latents) + self._mean.like(latents)
