"""Sets a request's starting point: its latents and its solver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.controls.control import ControlPicture
from multimodal_gen.runtime.controls.control_rows import ControlUse
from multimodal_gen.runtime.stages.extrapolation import plan_quality
from multimodal_gen.runtime.stages.preview import Preview
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


class PrepareStage:
    """Draws the initial latents and creates the solver; repeatable with the same result."""

    def __init__(self, pipeline: Pipeline, *, is_output_rank: bool) -> None:
        self._pipeline = pipeline
        self._is_output_rank = is_output_rank
        # for images to start from, or to condition on
        self.uses = pipeline.components_of_kind("vae")

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        shown = any(state.pictures for state in states)
        return self.uses if shown else self._pipeline.components_of_kind()

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        for state in states:
            self._prepare(state)

    def _prepare(self, state: RequestState) -> None:
        assert state.params.seed is not None
        state.generator.manual_seed(state.params.seed)
        state.evaluation, state.stepped = 0, None
        state.history, state.kept = (), None
        state.after_step = []
        for use in state.controls:  # before the noise, as in the pipelines that draw their latents
            self._pipeline.controls.prepare(use, self._shown(state, use))
        self._pipeline.prepare(state)
        state.first = state.evaluation
        state.branches, state.momentum = self._pipeline.combined(state), None
        plan_quality(self._pipeline, state)
        solver, _ = state.running()
        solver.weigh(state.evaluation)
        state.warnings += _missed_spans(state, solver.num_evaluations)
        if self._is_output_rank and state.req.previews:
            state.after_step.append(
                Preview(self._pipeline, state.evaluation, solver.num_evaluations)
            )

    def _shown(self, state: RequestState, use: ControlUse) -> ControlPicture:
        return ControlPicture(
            state.pictures[use.picture],
            *state.size,
            tuple(state.conditioning),
            use.mode,
            state.conditioning,
            state.params.guidance_scale,
            self._pipeline.vae,
            state.generator,
        )


def _missed_spans(state: RequestState, evaluations: int) -> Iterator[RequestWarning]:
    """Warn of adapters whose part of the steps has none."""
    left = range(state.first, evaluations)
    for lora in state.params.lora:
        if not any(lora.start <= i / evaluations < lora.stop for i in left):
            yield _without_steps("lora", lora.name, lora.start, lora.stop)
    for use in state.controls:
        if not any(use.applies(i - state.first, len(left)) for i in left):
            yield _without_steps("control", use.name, use.start, use.stop)


def _without_steps(field: str, name: str, start: float, stop: float) -> RequestWarning:
    text = f"{field}={name!r} has no effect: no step begins from {start:g} to {stop:g} of all"
    return RequestWarning("no_effect", field, text)
