"""Latents to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal_gen.runtime.pipelines.request_state import RequestState

if TYPE_CHECKING:
    from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


class DecodeStage:
    """Decodes the next k chunks of each request."""

    def __init__(self, pipeline: ComposedPipeline) -> None:
        self._pipeline = pipeline
        self.components = pipeline.names_of("vae")

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            _, latents = state.running()
            done = len(state.chunks)
            chunks = self._pipeline.decode_chunks(state.params)
            for chunk in range(done, min(done + k, chunks)):
                state.chunks.append(self._pipeline.decode(state, latents, chunk))
