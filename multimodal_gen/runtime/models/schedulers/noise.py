"""Noise that the steps of one request add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.schedulers.step_weights import Draw, StepWeights

AHEAD_BYTES = 2**24
"""Bytes drawn ahead for one request, if it is more than one evaluation's noise."""


class StepNoise:
    """Draws in the order of diffusers' steps, some evaluations ahead, and copies them at once.

    No other draw of the generator may lie between two steps.
    """

    def __init__(
        self, weights: StepWeights, generator: torch.Generator, device: torch.device
    ) -> None:
        self._draws = weights.draws
        self._first = weights.first
        self._generator = generator
        self._device = device
        self._next = 0
        self._drawn: dict[int, Tensor] = {}

    def at(self, i: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Noise of evaluation i: this one, one that was asked for before, or the next; None if it
        draws none. `dtype` is the prediction's."""
        if self._draws[i - self._first] is None:
            return None
        if i not in self._drawn:
            self._draw(i, shape, dtype)
        return self._drawn[i]

    def _draw(self, i: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        most = max(1, AHEAD_BYTES // (torch.Size(shape).numel() * 4))
        drawn: dict[int, Tensor] = {}
        while len(drawn) < most and self._next < len(self._draws):
            draw = self._draws[self._next]
            self._next += 1
            if draw is None:
                continue
            noise = self._one(draw, shape, dtype)
            if self._first + self._next > i:
                drawn[self._first + self._next - 1] = noise
        together = copied(torch.cat([*drawn.values()]), self._device)
        self._drawn = dict(zip(drawn, together.split(shape[0]), strict=True))

    def _one(self, draw: Draw, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        every = [
            torch.randn(shape, generator=self._generator, dtype=draw.dtype or dtype)
            for _ in range(draw.times)
        ]
        return every[draw.used]
