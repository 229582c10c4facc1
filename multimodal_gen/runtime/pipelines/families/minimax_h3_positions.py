"""Positions of MiniMax-H3's tokens in time, down and across: text, then media on one clock.

The clock counts latents of sound, of which there are 40 a second, and starts after the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_PER_FRAME = 5 / 3
_FRAMES = (1, 4, 4, 4, 4)
"""Frames of a clip that its latent frames stand for."""
_SIDE = 32.0
"""Of a square picture, however many tokens it has."""


class LatentGrid(NamedTuple):
    """Latents of a picture or a video, and those that are one token."""

    frames: int
    height: int
    width: int
    patch: tuple[int, int]

    @property
    def span(self) -> float:
        """Duration of a video."""
        return math.fsum(_spans(self.frames))

    def positions(self, times: Iterable[float]) -> Tensor:
        """Positions [S, 3] of tokens whose frames are at these times."""
        axes = (torch.tensor([*times], dtype=torch.float64), self._axis(0), self._axis(1))
        return torch.cartesian_prod(*axes)

    def video(self, start: float) -> Tensor:
        """Positions of a video that begins at `start`."""
        spans = torch.tensor([0.0, *_spans(self.frames)[:-1]], dtype=torch.float64)
        return self.positions((start + spans.cumsum(0)).tolist())

    def sound(self, start: float, latents: int) -> Tensor:
        """Positions [2 * latents, 3] of its sound: of the left channel on the left, then of the
        right one."""
        times = start + torch.arange(latents, dtype=torch.float64)
        axis = self._axis(1)
        zero = torch.zeros_like(times)
        channels = [torch.stack((times, zero, zero + side), dim=1) for side in axis[[0, -1]]]
        return torch.cat(channels)

    def _axis(self, side: int) -> Tensor:
        """Coordinates along a side, which are centred: the longer the side, the more they span."""
        latents, patch = (self.height, self.width)[side], self.patch[side]
        ratio = latents / math.sqrt(self.height * self.width)
        steps = torch.arange(latents // patch, dtype=torch.float64)
        return ((1 - ratio) / 2 + steps * (ratio / (latents // patch))) * _SIDE


def _spans(frames: int) -> list[float]:
    """Duration of each latent frame."""
    return [_PER_FRAME * _FRAMES[i % len(_FRAMES)] for i in range(frames)]


def with_frames(output: LatentGrid, sound: int, text: int, ends: Sequence[str]) -> Tensor:
    """Positions [1, S, 3] of a video, of given frames at these ends of it and of the sound, after
    `text` tokens."""
    start, frame = float(text), output._replace(frames=1)
    times = {"image": start, "last_image": start + output.span - _PER_FRAME}
    given = [frame.positions([times[end]]) for end in ends]
    return torch.cat((output.video(start), *given, output.sound(start, sound)))[None]


def with_references(
    output: LatentGrid, sound: int, text: int, references: Sequence[LatentGrid]
) -> Tensor:
    """The same after pictures, each of which takes one count of the clock."""
    given = [each.positions([float(text + i)]) for i, each in enumerate(references)]
    start = float(text + len(references))
    return torch.cat((output.video(start), *given, output.sound(start, sound)))[None]
