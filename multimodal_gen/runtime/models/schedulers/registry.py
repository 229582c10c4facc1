"""Creates the solvers that a checkpoint allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import torch

from multimodal_gen.configs.solver_choice import default_solver_name, solver_names, view_of
from multimodal_gen.configs.solvers import OWN_SPACING, SOLVERS, View
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.models.library_noise import draw_without_waiting
from multimodal_gen.runtime.models.schedulers.cogvideox_dpm import CogVideoXDPMSolver
from multimodal_gen.runtime.models.schedulers.flow_euler import FlowEulerSolver
from multimodal_gen.runtime.models.schedulers.schedule import (
    Schedule,
    accepted,
    base_levels,
    check_levels,
    install,
    linear_quadratic,
    set_timesteps,
)
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.schedulers.tcd import TCDSolver
from multimodal_gen.runtime.models.schedulers.unipc import UniPCMultistepScheduler

_SPECIAL: Mapping[str, type[Solver]] = {
    "CogVideoXDPMScheduler": CogVideoXDPMSolver,
    "FlowMatchEulerDiscreteScheduler": FlowEulerSolver,
    "TCDScheduler": TCDSolver,
}
"""Our own solvers for some of diffusers' classes; all others use `Solver`."""
_OWN = {"UniPCMultistepScheduler": UniPCMultistepScheduler}
"""Classes that take the place of diffusers'."""
_CURVED = ("karras", "exponential", "beta")
_OWN_CURVES = {"use_karras_sigmas", "sigma_schedule"}
"""Settings of classes that have these schedules themselves."""


def solver_class(config: Mapping[str, Any]) -> type[Any]:
    """Return diffusers' class of the checkpoint's default solver. Raises `InvalidCheckpoint`."""
    return _scheduler_class(SOLVERS[default_solver_name(config)].scheduler)


def make_solver(
    config: Mapping[str, Any],
    schedule: Schedule,
    *,
    name: str | None,
    generator: torch.Generator,
    device: torch.device,
) -> Solver:
    """Create the solver of one request.

    `config` is the checkpoint's scheduler_config.json. Without a `name`, or with the checkpoint's
    own, its class and config are used unchanged, but for the schedule; another name selects that
    class, created from the same config. `generator` is the request's own CPU generator, after the
    initial noise was drawn from it.

    Raises `InvalidRequest` (its field is `scheduler`, `num_inference_steps` or `flow_shift`) and
    `InvalidCheckpoint`.
    """
    view = view_of(config)
    if schedule.flow_shift is not None and view is not View.FLOW:
        raise InvalidRequest(
            "flow_shift", schedule.flow_shift, "this model does not use flow matching"
        )
    if schedule.flow_shift is not None and not 0 < schedule.flow_shift < math.inf:
        raise InvalidRequest("flow_shift", schedule.flow_shift, "must be a number above 0")
    scheduler = _make_scheduler(config, name, view, schedule)
    set_timesteps(scheduler, view, schedule)
    if schedule.noise_schedule != OWN_SPACING:
        _space(scheduler, config, view, schedule)
    check_levels(scheduler, schedule.num_inference_steps)
    kind = _SPECIAL.get(type(scheduler).__name__, Solver)
    solver = (kind if kind.fits(scheduler) else Solver)(scheduler, generator, device)
    spec = SOLVERS[name or default_solver_name(config)]
    solver.stochastic = spec.stochastic or bool(scheduler.config.get("stochastic_sampling"))
    return solver


@cache
def _scheduler_class(name: str) -> type[Any]:
    kind: type[Any] = _OWN.get(name) or getattr(diffusers, name)
    draw_without_waiting(kind)
    return kind


def _make_scheduler(
    config: Mapping[str, Any], name: str | None, view: View, schedule: Schedule
) -> Any:
    own, overrides = default_solver_name(config), dict[str, object]()
    name = name or own
    if name not in solver_names(config):
        allowed = ", ".join(solver_names(config))
        raise InvalidRequest("scheduler", name, f"this model ({view.value}) allows {allowed}")
    kind = _scheduler_class(SOLVERS[name].scheduler)
    if name != own or config.get("_class_name") != kind.__name__:
        overrides = dict(SOLVERS[name].views[view])
        # A null with a meaning for its own class (Euler's sigma_min) is unset for another class.
        config = {key: value for key, value in config.items() if value is not None}
    return _created(kind, {**config, **overrides, **schedule.settings(kind, view, config)})


def _created(kind: Any, values: Mapping[str, Any]) -> Any:
    try:
        return kind(**{key: values[key] for key in accepted(kind) if key in values})
    except (TypeError, ValueError, RuntimeError, IndexError, ImportError) as error:
        raise InvalidCheckpoint(f"scheduler_config.json: {kind.__name__}: {error}") from error


def _space(scheduler: Any, config: Mapping[str, Any], view: View, schedule: Schedule) -> None:
    """Apply a noise schedule that the scheduler's class has no setting for."""
    if view is View.FLOW:
        _space_flow(scheduler, config, schedule)
    elif schedule.noise_schedule in _CURVED and _OWN_CURVES.isdisjoint(scheduler.config):
        kind = _scheduler_class(SOLVERS["euler"].scheduler)
        source = _created(kind, {**scheduler.config, **schedule.settings(kind, view, config)})
        set_timesteps(source, view, schedule)
        install(scheduler, source.sigmas[:-1], source.timesteps)


def _space_flow(scheduler: Any, config: Mapping[str, Any], schedule: Schedule) -> None:
    """Give any flow solver the levels that Euler's class has with the schedule."""
    trained: int = scheduler.config.num_train_timesteps
    if schedule.noise_schedule == "linear_quadratic":
        levels = torch.tensor(linear_quadratic(schedule.num_inference_steps))
    else:
        kind = _scheduler_class(SOLVERS["flow_euler"].scheduler)
        settings = {**schedule.settings(kind, View.FLOW, config), **schedule.spacing}
        source = _created(kind, {**config, **settings})
        set_timesteps(source, View.FLOW, replace(schedule, sigmas=base_levels(schedule, trained)))
        levels = source.sigmas[:-1]
    install(scheduler, levels, levels * trained)
