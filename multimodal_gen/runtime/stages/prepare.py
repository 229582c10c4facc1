"""The noise that a request starts from, and its solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal_gen.runtime.pipelines.request_state import RequestState
from multimodal_gen.runtime.stages.preview import Preview

if TYPE_CHECKING:
    from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


class PrepareStage:
    """Draws the initial latents and makes the solver; may be repeated with the same outcome."""

    components: tuple[str, ...] = ()

    def __init__(self, pipeline: ComposedPipeline, *, previews: bool) -> None:
        self._pipeline = pipeline
        self._previews = previews

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            self._prepare(state)

    def _prepare(self, state: RequestState) -> None:
        params = state.params
        assert params.seed is not None
        state.generator.manual_seed(params.seed)
        noise = self._pipeline.initial_noise(params, state.generator)
        state.solver = self._pipeline.solver(params, state.generator)
        state.latents = state.solver.init_noise(noise.to(self._pipeline.context.device))
        state.evaluation, state.stepped = 0, None
        state.after_step = []
        if self._previews and state.req.previews:
            state.after_step.append(Preview(self._pipeline, state.solver.num_evaluations))
