"""Latents of a video and its sound, as one sequence of tokens: LTX-2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.vaes.vae import VAE
from multimodal_gen.runtime.pipelines.latents.tokens import LatentTokens


class LatentsWithSound(LatentTokens):
    """Tokens [1, T * h * w + S, C], of the video and then of the sound, in float32."""

    def __init__(self, vae: VAE, audio_vae: Any, context: RankContext, multiple: int) -> None:
        """`audio_vae` is diffusers' module; `multiple` as for all layouts."""
        super().__init__(vae, context, dtype=torch.float32, patch=(1, 1, 1), multiple=multiple)
        config = audio_vae.config
        self._channels: int = config.latent_channels
        self._bins: int = config.mel_bins // audio_vae.mel_compression_ratio
        self._per_second: float = (
            config.sample_rate / config.mel_hop_length / audio_vae.temporal_compression_ratio
        )

    def sound_tokens(self, params: SamplingParams) -> int:
        """S: tokens of the sound, which lasts as long as the video."""
        assert params.num_frames is not None
        assert params.fps is not None
        return round(params.num_frames / params.fps * self._per_second)

    def noise(self, params: SamplingParams, generator: torch.Generator) -> Tensor:
        video = super().noise(params, generator)
        shape = (1, self._channels, self.sound_tokens(params), self._bins)
        sound = torch.randn(shape, generator=generator, dtype=self.dtype)
        return torch.cat((video, copied(sound.transpose(1, 2).flatten(2), self.device)), dim=1)

    def noise_of_tokens(
        self, params: SamplingParams, generator: torch.Generator, added: int
    ) -> Tensor:
        """Noise of the video with `added` further tokens, then of the sound, drawn token by
        token."""
        counts = (math.prod(self.grid(params)) + added, self.sound_tokens(params))
        parts = [
            torch.randn(1, count, self._channels * self._bins, generator=generator)
            for count in counts
        ]
        return copied(torch.cat(parts, dim=1), self.device, self.dtype)

    def unpack(self, latents: Tensor, params: SamplingParams) -> Tensor:
        """Latents of the video alone."""
        return super().unpack(latents[:, : self.tokens(params)], params)

    def unpack_sound(self, tokens: Tensor) -> Tensor:
        """Convert tokens of sound [1, S, C] to the latents of its VAE, [1, channels, S, bins]."""
        unpacked: Tensor = tokens.unflatten(2, (self._channels, self._bins)).transpose(1, 2)
        return unpacked
