"""Latents of a video and its sound whose tokens are of different widths: MiniMax-H3."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.latents.layout import LatentLayout

CHANNELS = 2
"""Of sound: left and right, one after the other."""


class NumbersWithSound(LatentLayout):
    """The numbers [1, N] of the video's tokens, which are patches, and of the sound's, in
    float32."""

    def __init__(
        self,
        vae: VAE,
        audio_vae: Any,
        context: RankContext,
        patch: tuple[int, int, int],
        per_second: float,
        fps: float,
    ) -> None:
        """`audio_vae` is diffusers' module, with `per_second` latents a second; the model makes
        `fps` frames a second."""
        super().__init__(vae, context, dtype=torch.float32, patch=patch)
        self._width: int = audio_vae.config.latent_channels
        self._per_frame = (fps, per_second)

    @property
    def patch(self) -> tuple[int, int]:
        """Latents of a token, down and across."""
        down, across = self._patch[1:]
        return down, across

    def sound_latents(self, params: SamplingParams) -> int:
        """Latents of each channel."""
        assert params.num_frames is not None
        fps, per_second = self._per_frame
        return round(params.num_frames / fps * per_second)

    def video_tokens(self, params: SamplingParams) -> int:
        return math.prod(self.grid(params))

    def sound_tokens(self, params: SamplingParams) -> int:
        return CHANNELS * self.sound_latents(params)

    def tokens(self, params: SamplingParams) -> int:
        return self.video_tokens(params) + self.sound_tokens(params)

    def video_numbers(self, params: SamplingParams) -> int:
        """Count of the numbers that are the video's."""
        return math.prod(self.shape(params))

    def noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        video = super().noise(params, generator)
        shape = (1, self.sound_tokens(params) * self._width)
        sound = torch.randn(shape, generator=generator, dtype=self.dtype)
        return torch.cat((video.flatten(1), copied(sound, self.device)), dim=1)

    def pack(self, latents: Tensor) -> Tensor:
        """Tokens [B, T * h * w, C] of the VAE's latents."""
        _, down, across = self._patch
        # [B, C, T, h, down, w, across]
        tokens: Tensor = latents.unflatten(4, (-1, across)).unflatten(3, (-1, down))
        return tokens.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)

    def split(self, latents: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
        """Tokens of the video [B, S, C] and of the sound [B, A, D]."""
        video = self.video_numbers(params)
        tokens: Tensor = latents[:, :video].unflatten(1, (self.video_tokens(params), -1))
        sound: Tensor = latents[:, video:].unflatten(1, (-1, self._width))
        return tokens, sound

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        """Latents of the video alone."""
        tokens, _ = self.split(latents, params)
        # [B, T, h, w, C, down, across]
        patches: Tensor = tokens.unflatten(2, (-1, *self._patch[1:]))
        patches = patches.unflatten(1, self.grid(params))
        return patches.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4)

    def unpack_sound(self, latents: Tensor, params: SamplingParams) -> Tensor:
        """Latents [channels, D, S] as its VAE takes them: each channel by itself."""
        _, sound = self.split(latents, params)
        unpacked: Tensor = sound[0].unflatten(0, (CHANNELS, -1)).transpose(1, 2)
        return unpacked
