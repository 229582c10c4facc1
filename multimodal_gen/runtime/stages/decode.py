"""Decodes latents to pixels."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.runtime.stages.overlay import with_unmasked
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import join
from multimodal_gen.runtime.stages.stage import Pipeline


class DecodeStage:
    """Decodes the next k chunks of each request."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.components = pipeline.components_of_kind("vae")

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for together in self._groups(states):
            latents = join([state.running()[1] for state in together])
            done = len(together[0].chunks)
            chunks = self._pipeline.decode_chunks(together[0].params)
            for chunk in range(done, min(done + k, chunks)):
                pixels = self._pipeline.decode(together, latents, chunk)
                for state, own in zip(together, pixels.chunk(len(together)), strict=True):
                    state.chunks.append(with_unmasked(state, own))

    def _groups(self, states: Sequence[RequestState]) -> list[list[RequestState]]:
        """Group states of equal size, if they can be decoded together."""
        groups: dict[object, list[RequestState]] = {}
        for state in states:
            _, latents = state.running()
            size = (state.params.width, state.params.height, latents.shape)
            alone = not self._pipeline.decodes_together(state.params)
            groups.setdefault(id(state) if alone else size, []).append(state)
        return list(groups.values())
