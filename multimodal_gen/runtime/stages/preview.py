"""Pictures of a generation under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from multimodal_gen.runtime.pipelines.request_state import RequestState

if TYPE_CHECKING:
    from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

PER_REQUEST = 10
"""Previews of one request at most: each costs a small decode."""


class Preview:
    """Called after each step of one request: shows the estimate of x0, evenly spread."""

    def __init__(self, pipeline: ComposedPipeline, evaluations: int) -> None:
        self._pipeline = pipeline
        self._evaluations = evaluations
        self._every = -(-evaluations // PER_REQUEST)

    def __call__(self, state: RequestState, x0: Tensor) -> None:
        done = state.evaluation
        if done % self._every == 0 and done < self._evaluations:
            state.preview = self._pipeline.preview(state.params, x0)
