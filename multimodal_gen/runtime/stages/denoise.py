"""The denoising loop: predict, guide, step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multimodal_gen.runtime.distributed.rows import gather_rows
from multimodal_gen.runtime.stages.batch import Batch
from multimodal_gen.runtime.stages.preview import Preview
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows, join
from multimodal_gen.runtime.stages.stage import Pipeline
from multimodal_gen.runtime.stages.steps import Steps


class DenoiseStage:
    """Advances a batch by k evaluations of the denoiser.

    An evaluation is done for all of its requests or for none, so that a failed one can be retried,
    also with fewer requests.
    """

    def __init__(self, pipeline: Pipeline, *, is_output_rank: bool) -> None:
        self._pipeline = pipeline
        self._is_output_rank = is_output_rank
        self._mesh = pipeline.context.mesh
        self._batch: Batch | None = None
        self._steps: Steps | None = None
        self._decoders = pipeline.components_of_kind("vae")
        self.uses = pipeline.components_of_kind(pipeline.denoiser_name)

    def components(self, states: Sequence[RequestState], k: int) -> tuple[str, ...]:
        """The denoiser of these evaluations, and what shows a preview after them."""
        names = self._pipeline.denoisers_now(states)
        shown = any(
            isinstance(each, Preview) and each.is_due(state, k)
            for state in states
            for each in state.after_step
        )
        return (*names, *self._decoders) if shown else names

    def __call__(self, states: Sequence[RequestState], k: int) -> None:
        steps = self._steps_of(states)
        for _ in range(k):
            predictions, rows = _completed(states, *self._computed(states, steps))
            guided = self._pipeline.guidance.guide_all(predictions, states, rows)
            estimates = steps.take(states, guided)
            for state, x0 in zip(states, estimates, strict=True):
                for observe in state.after_step:
                    observe(state, x0)
            if self._is_output_rank:
                steps.measure(states)

    def _computed(
        self, states: Sequence[RequestState], steps: Steps
    ) -> tuple[Tensor, Sequence[int]]:
        """Predictions [rows, ...] for the branches that each request computes now, and how many
        each has."""
        now = [state.branches_at(state.evaluation) for state in states]
        if not any(now):
            return states[0].running()[1][:0], [0] * len(states)
        batch = self._batch_of(states, now)
        predicted = self._predict(states, batch, steps)
        return gather_rows(predicted, batch.rows, self._mesh), batch.rows_of

    def _predict(self, states: Sequence[RequestState], batch: Batch, steps: Steps) -> Tensor:
        """Prediction of the denoiser for this rank's share of the rows."""
        if not batch.owners:  # more ranks than rows
            _, x = states[0].running()
            return x[:0].to(self._pipeline.context.dtype)
        latents, timesteps = steps.inputs(states, batch.owners)
        owners = [states[at] for at in batch.owners]
        lora, controls = None, None
        loras = [state.loras for state in states]
        if any(loras):
            now = [state.loras_now for state in states]
            lora = self._pipeline.loras.rows([now[at] for at in batch.owners])
        steered = [state.controls for state in states]
        if any(steered):
            rows = zip(owners, batch.branches, strict=True)
            uses = [own.controls_now(branch) for own, branch in rows]
            controls = batch.controls(uses, self._pipeline.controls.rows)
        evaluation = Rows(latents, timesteps, batch.conditioning, owners, lora, controls)
        runner = states[0].runner
        if runner == "captured" and not self._pipeline.can_capture(evaluation):
            runner = "eager"
        self._pipeline.when_evaluating()
        with self._pipeline.runners.using(runner):
            return self._pipeline.predict(evaluation)

    def _batch_of(
        self, states: Sequence[RequestState], computed: Sequence[tuple[str, ...]]
    ) -> Batch:
        """Cached while the same requests stay together and compute the same branches."""
        if self._batch is None or not self._batch.is_of(states, computed):
            self._batch = None  # frees the old one before creating the new one
            for state in states:
                self._pipeline.precompute(state)
            with self._pipeline.runners.using(states[0].runner):
                self._batch = Batch(states, self._mesh, self._pipeline.join)
        return self._batch

    def _steps_of(self, states: Sequence[RequestState]) -> Steps:
        """Cached like the batch."""
        if self._steps is None or not self._steps.are_of(states):
            self._steps = None
            self._steps = Steps(states)
        return self._steps


def _completed(
    states: Sequence[RequestState], computed: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Sequence[int]]:
    """Predictions of the branches that each request combines, and how many each has."""
    caches = [state.cache for state in states]
    if not any(caches):
        return computed, rows
    own = zip(states, computed.split([*rows]), strict=True)
    completed = [state.completed(each) for state, each in own]
    return join(completed), [len(each) for each in completed]
