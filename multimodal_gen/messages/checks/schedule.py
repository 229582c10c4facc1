"""Checks of a request's noise levels against its solver and model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import OWN_SPACING, SOLVERS, noise_schedules_of
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo

_OF_SPACING = ("simple", "sgm_uniform", "ddim_uniform")
"""Noise schedules that are timestep spacings."""


def check_schedule(params: SamplingParams, model: ModelInfo) -> None:
    """Check what a request says of its noise levels; its scheduler is filled in.

    Raises InvalidRequest.
    """
    for name, problem in _problems(params, model):
        raise InvalidRequest(name, getattr(params, name), problem)


def _problems(params: SamplingParams, model: ModelInfo) -> Iterator[tuple[str, str]]:
    solver, name = params.scheduler, params.noise_schedule or OWN_SPACING
    if solver is None or solver not in SOLVERS:
        return
    supported = noise_schedules_of([solver])
    if name not in supported:
        known = ", ".join(each for each in model.noise_schedules if each in supported)
        yield "noise_schedule", f"{solver} allows {known}"
    if params.timestep_spacing is not None:
        if "simple" not in supported:
            yield "timestep_spacing", f"{solver} has no choice of timesteps"
        if name in _OF_SPACING:
            yield "timestep_spacing", f"conflicts with noise_schedule={name}"
    if params.sigmas:
        if params.timestep_spacing is not None or name != OWN_SPACING:
            yield "sigmas", "conflicts with noise_schedule and timestep_spacing"
        yield from (("sigmas", problem) for problem in _problems_of_sigmas(params, solver, model))


def _problems_of_sigmas(params: SamplingParams, solver: str, model: ModelInfo) -> Iterator[str]:
    if not SOLVERS[solver].explicit_sigmas:
        able = (each for each in model.schedulers if SOLVERS[each].explicit_sigmas)
        yield f"{solver} has its own; schedulers that take them: {', '.join(able) or 'none'}"
    if not all(first > then for first, then in pairwise(params.sigmas)) or params.sigmas[0] <= 0:
        yield "must fall, to no less than 0"
    if "flow_shift" in model.parameters and params.sigmas[0] > 1:
        yield "must be at most 1 for flow matching"
    if len(params.levels) != params.num_inference_steps:
        yield f"must be one per step: num_inference_steps={params.num_inference_steps}"
