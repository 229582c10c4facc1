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


class DenoiseStage:
    """Advances a batch by k evaluations of the denoiser.

    An evaluation is done for all of its requests or for none, so that a failed one can be retried,
    also with fewer requests.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._mesh = pipeline.context.mesh
        self._batch: Batch | None = None
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
        for _ in range(k):
            for state, rows in zip(states, self._computed(states), strict=True):
                self._step(state, rows)
            shown = [_commit(state) for state in states]
            for state, x0 in zip(states, shown, strict=True):
                for observe in state.after_step:
                    observe(state, x0)

    def _computed(self, states: Sequence[RequestState]) -> Sequence[Tensor]:
        """Predictions [branches, ...] of each request for the branches that it computes now."""
        if not any(state.branches_at(state.evaluation) for state in states):
            return [state.running()[1][:0] for state in states]
        batch = self._batch_of(states)
        prediction = gather_rows(self._predict(states, batch), batch.rows, self._mesh)
        split: Sequence[Tensor] = prediction.split(batch.rows_of)
        return split

    def _predict(self, states: Sequence[RequestState], batch: Batch) -> Tensor:
        """Prediction of the denoiser for this rank's share of the rows."""
        latents: list[Tensor] = []
        timesteps: list[Tensor] = []
        owners: list[RequestState] = []
        for at, rows in batch.local:
            (solver, x), i = states[at].running(), states[at].evaluation
            owners += [states[at]] * rows
            latents += [solver.scale_input(x, i)] * rows
            timesteps += [solver.timesteps[i : i + 1]] * rows
        if not latents:  # more ranks than rows
            _, x = states[0].running()
            return x[:0].to(self._pipeline.context.dtype)
        lora = self._pipeline.loras.rows([state.loras_now for state in owners])
        uses = [
            own.controls_now(branch) for own, branch in zip(owners, batch.branches, strict=True)
        ]
        controls = batch.controls(uses, self._pipeline.controls.rows)
        evaluation = Rows(
            join(latents), join(timesteps), batch.conditioning, owners, lora, controls
        )
        return self._pipeline.predict(evaluation)

    def _step(self, state: RequestState, prediction: Tensor) -> None:
        if state.stepped is not None:  # an earlier try got this far; solvers may step only once
            return
        solver, x = state.running()
        guided = self._pipeline.guidance.guide(state.completed(prediction), state)
        state.stepped = solver.step(guided, state.evaluation, x)

    def _batch_of(self, states: Sequence[RequestState]) -> Batch:
        """Cached while the same requests stay together and compute the same branches."""
        if self._batch is None or not self._batch.is_of(states):
            self._batch = None  # frees the old one before creating the new one
            for state in states:
                self._pipeline.precompute(state)
            self._batch = Batch(states, self._mesh, self._pipeline.join)
        return self._batch


def _commit(state: RequestState) -> Tensor:
    """Take the step; returns the estimate of x0. Can't fail: either all requests step, or none."""
    assert state.stepped is not None
    state.latents, x0 = state.stepped
    state.stepped = None
    state.evaluation += 1
    return x0
