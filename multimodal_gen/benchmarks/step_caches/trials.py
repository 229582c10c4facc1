"""Closeness of pictures with extrapolated evaluations to exact ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.step_cache import Quality, StepCache
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.decode import decode_units
from multimodal_gen.runtime.stages.request_state import RequestState

_FINEST = 1e-3
"""Mean squared difference, of 255², below which pictures count as equal: 78 dB."""


class Closeness(NamedTuple):
    """PSNR in dB against exact pictures."""

    mean: float
    worst: float

    def reaches(self, bar: Closeness) -> bool:
        return self.mean >= bar.mean and self.worst >= bar.worst


class Trials:
    """Requests of one shape, with their exact results, against which rules are tried."""

    def __init__(
        self, pipeline: ComposedPipeline, requests: Sequence[SamplingParams], together: int = 8
    ) -> None:
        """`requests` have their defaults filled in; `together` are evaluated at once."""
        self._pipeline = pipeline
        self._requests = requests
        self._together = together
        self._exact = [*self._made("exact")]

    def closeness(self, rule: StepCache) -> Closeness:
        """Compare the results of a rule."""
        self._pipeline.step_caches = {"high": rule}
        made = zip(self._made("high"), self._exact, strict=True)
        ratios = [_psnr(pixels, exact) for pixels, exact in made]
        return Closeness(sum(ratios) / len(ratios), min(ratios))

    def _made(self, quality: Quality) -> Iterator[Tensor]:
        for at in range(0, len(self._requests), self._together):
            group = self._requests[at : at + self._together]
            states = [self._begun(replace(params, quality=quality)) for params in group]
            for _ in range(states[0].evaluations_left):
                self._pipeline.forward(Phase.DENOISE, states, 1)
            for state in states:
                units = decode_units(self._pipeline, state)
                self._pipeline.forward(Phase.DECODE, [state], units)
                yield torch.cat(state.chunks).cpu()

    def _begun(self, params: SamplingParams) -> RequestState:
        state = RequestState.of(Req(id="trial", params=params))
        self._pipeline.forward(Phase.ENCODE, [state], 1)
        return state


def _psnr(one: Tensor, other: Tensor) -> float:
    squares = (one.double() - other.double()).square().mean().clamp(min=_FINEST)
    return float(10 * torch.log10(255**2 / squares))
