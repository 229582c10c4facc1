"""Encodes prompts to conditioning."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


class EncodeStage:
    """Sets the conditioning of each request's branches."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.components = pipeline.components_of_kind("tokenizer", "processor", "text_encoder")

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            rows = self._pipeline.loras.rows([state.loras])
            with self._pipeline.loras.hooks.applied(rows):
                state.conditioning = {
                    branch: self._pipeline.condition(state, branch)
                    for branch in self._pipeline.guidance.branches(state.params)
                }
            state.warnings += self._pipeline.without_effect(state)
