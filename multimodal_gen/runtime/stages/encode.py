"""Encodes prompts to conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from multimodal_gen.runtime.distributed.first_rank import make_sharing
from multimodal_gen.runtime.distributed.rank_context import ENCODING
from multimodal_gen.runtime.stages.request_state import Conditioning, RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


class EncodeStage:
    """Sets the conditioning of each request's branches: one rank encodes for all."""

    def __init__(self, pipeline: Pipeline) -> None:
        context = pipeline.context
        self._pipeline = pipeline
        self._shared = make_sharing(context.mesh, context.device)
        self.uses = pipeline.components_of_kind(*ENCODING) if context.encodes else ()

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        """Components that are needed in any case: encoders are held for prompts that are new."""
        return self._pipeline.components_of_kind()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            self._pipeline.controls.check(state.controls, *state.size)
            state.conditioning = self._shared(partial(self._encoded, state))
            state.warnings += self._pipeline.without_effect(state)
            if self._pipeline.context.encodes:
                state.prompt_tokens = self._pipeline.reads.tokens(state)
                state.prompt_notes += self._pipeline.reads.notes(state)
                state.warnings += self._pipeline.reads.unread(state)

    def _encoded(self, state: RequestState) -> dict[str, Conditioning]:
        rows = self._pipeline.loras.rows([state.loras_now])
        with self._pipeline.loras.hooks.applied(rows):
            return {
                branch: self._pipeline.condition(state, branch)
                for branch in self._pipeline.guidance.branches(state.params)
            }
