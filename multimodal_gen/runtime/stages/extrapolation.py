"""Decides, when a request is prepared, which of its evaluations are extrapolated."""

from __future__ import annotations

from multimodal_gen.configs.step_cache import FEWEST_EVALUATIONS
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.stages.prediction_cache import PredictionCache, plan_evaluations
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Pipeline


def plan_quality(pipeline: Pipeline, state: RequestState) -> None:
    """Give a prepared request its step cache, as its `quality` asks for; it follows from nothing
    else than the request."""
    state.cache, quality = None, state.params.quality
    if (rule := pipeline.step_caches.get(quality)) is None:
        return
    solver, _ = state.running()
    if (reason := _reason_for_exact(solver, state)) is not None:
        text = f"quality={quality} has no effect: {reason}"
        state.warnings.append(RequestWarning("no_effect", "quality", text))
        return

    def kind(i: int) -> object:
        return pipeline.batch_kind(state, i), state.loras_at(i), state.controls_at(i)

    evaluations = solver.num_evaluations
    plan = plan_evaluations(rule, evaluations, state.evaluation, state.combined_at, kind)
    if not all(each.is_complete for each in plan):
        times = [solver.timestep(i) for i in range(evaluations)]
        state.cache = PredictionCache(rule, times, plan)


def _reason_for_exact(solver: Solver, state: RequestState) -> str | None:
    if solver.stochastic:
        return "this scheduler adds noise in each step, which must be computed"
    if state.evaluations_left < FEWEST_EVALUATIONS:
        return f"fewer than {FEWEST_EVALUATIONS} evaluations are all computed"
    return None
