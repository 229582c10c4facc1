"""Rotary tables of LTX-2: positions in seconds and pixels, one frequency per pair of all heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config, StreamName


class VideoGrid(NamedTuple):
    """Tokens of a video."""

    frames: int
    height: int
    width: int
    fps: float
    last_frame: bool = False
    """Whether tokens follow that show the last frame alone."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens of the first frame, of the others, and of the last frame if it follows."""
        frame = self.height * self.width
        return (frame, (self.frames - 1) * frame, *((frame,) if self.last_frame else ()))


class StreamTables(NamedTuple):
    """Rotary tables of a rank, each [S, features / 2, 2]."""

    video: Tensor
    audio: Tensor
    exchanged_video: Tensor
    exchanged_audio: Tensor


def stream_tables(config: LTX2Config, stream: StreamName, positions: Tensor) -> tuple[Tensor, ...]:
    """Tables for a stream's attention to itself, and for the two streams' to each other, both [S,
    dim / 2, 2] in float32, for positions [axes, S]."""
    video = stream == "video"
    length = config.pos_embed_max_pos if video else config.audio_pos_embed_max_pos
    longest = max(config.pos_embed_max_pos, config.audio_pos_embed_max_pos)
    sides = (config.base_height, config.base_width) if video else ()
    return (
        _table(positions, (length, *sides), config.stream(stream).dim, config),
        _table(positions[:1], (longest,), config.stream("audio").dim, config),
    )


def video_positions(config: LTX2Config, grid: VideoGrid, device: torch.device) -> Tensor:
    """Middle of each token in seconds, and in pixels down and across: [3, S]."""
    stride, *pixels = config.vae_scale_factors
    starts, ends = (_causal(config, grid.frames, at, stride, device) / grid.fps for at in (0, 1))
    times = [(starts + ends) / 2.0]
    if grid.last_frame:
        frame = torch.tensor([(grid.frames - 2) * stride + 1.0], device=device)
        times.append((frame / grid.fps + (frame + 1) / grid.fps) / 2.0)
    sides = [
        (torch.arange(tokens, dtype=torch.float32, device=device) + 0.5) * size
        for tokens, size in zip((grid.height, grid.width), pixels, strict=True)
    ]
    return torch.cartesian_prod(torch.cat(times), *sides).T


def audio_positions(config: LTX2Config, frames: int, device: torch.device) -> Tensor:
    """Middle of each token in seconds, [1, S]."""
    hop, rate = config.audio_hop_length, config.audio_sampling_rate
    starts, ends = (
        _causal(config, frames, at, config.audio_scale_factor, device) * hop / rate for at in (0, 1)
    )
    return ((starts + ends) / 2.0)[None]


def _causal(config: LTX2Config, frames: int, at: int, stride: int, device: torch.device) -> Tensor:
    """First frames that each latent frame stands for, or with `at` 1 the ends: the first one
    stands for a single frame."""
    latent = torch.arange(at, frames + at, dtype=torch.float32, device=device)
    return (latent * stride + config.causal_offset - stride).clamp(min=0)


def _table(positions: Tensor, longest: Sequence[int], dim: int, config: LTX2Config) -> Tensor:
    """cos and sin. Rounded step by step as the reference does: the largest angles are so large that
    rounding decides their cosine. The first pairs, which are left over, do not turn."""
    exact = torch.float64 if config.rope_double_precision else torch.float32
    count = dim // (2 * len(longest))
    steps = torch.linspace(0.0, 1.0, count, dtype=exact, device=positions.device)
    frequencies = (torch.pow(config.rope_theta, steps) * torch.pi / 2.0).float()
    parts = [axis / size for axis, size in zip(positions, longest, strict=True)]
    angles = (torch.stack(parts, dim=-1).unsqueeze(-1) * 2 - 1) * frequencies  # [S, axes, count]
    angles = angles.transpose(1, 2).flatten(1)
    still = angles.new_zeros(len(angles), dim // 2 - angles.shape[1])
    angles = torch.cat((still, angles), dim=1)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)
