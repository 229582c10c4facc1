"""Selects the solvers that a checkpoint allows, and creates them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import diffusers
import numpy as np
import torch

from multimodal_gen.configs.solvers import OWN_SPACING, SOLVERS, View, scheduler_classes
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.models.schedulers.cogvideox_dpm import CogVideoXDPMSolver
from multimodal_gen.runtime.models.schedulers.flow_euler import FlowEulerSolver
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.schedulers.tcd import TCDSolver

_SPECIAL: Mapping[str, type[Solver]] = {
    "CogVideoXDPMScheduler": CogVideoXDPMSolver,
    "FlowMatchEulerDiscreteScheduler": FlowEulerSolver,
    "TCDScheduler": TCDSolver,
}
"""Our own solvers for some of diffusers' classes; all others use `Solver`."""


_CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
_EVEN = dict.fromkeys(_CURVES, False)
_SCHEDULE_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "karras": {**_EVEN, "use_karras_sigmas": True, "sigma_schedule": "karras"},
    "exponential": {**_EVEN, "use_exponential_sigmas": True, "sigma_schedule": "exponential"},
    "beta": {**_EVEN, "use_beta_sigmas": True},
    "lu": {**_EVEN, "use_lu_lambdas": True},
    "simple": {**_EVEN, "timestep_spacing": "trailing"},
    "sgm_uniform": {**_EVEN, "timestep_spacing": "trailing"},
    "ddim_uniform": {**_EVEN, "timestep_spacing": "leading"},
}
"""Settings of diffusers' classes for each noise schedule, as its guide to other programs' names
says."""


def solver_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Short names that a checkpoint with this scheduler_config allows, including its own.

    Raises `InvalidCheckpoint` if the config's own class is unknown.
    """
    own = default_solver_name(config)
    return tuple(name for name in SOLVERS if name == own or _suits(name, config))


def default_solver_name(config: Mapping[str, Any]) -> str:
    """Short name of the checkpoint's own scheduler class.

    Raises `InvalidCheckpoint` if the class is unknown.
    """
    own = own_scheduler_class(config).__name__
    rows = [row for row in SOLVERS.values() if row.scheduler == own]
    marked = sorted(rows, key=lambda row: len(row.marks), reverse=True)
    return next(row.name for row in marked if _has_marks(config, row.marks))


def own_scheduler_class(config: Mapping[str, Any]) -> type[Any]:
    """Return the checkpoint's own scheduler class. Raises `InvalidCheckpoint` if it is unknown."""
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in scheduler_classes():
        raise InvalidCheckpoint(
            f"scheduler_config.json: _class_name={name!r} is not one of "
            f"{', '.join(scheduler_classes())}"
        )
    return _scheduler_class(name)


def view_of(config: Mapping[str, Any]) -> View:
    """Kind of prediction of the model of a checkpoint with this scheduler_config.

    A class with only one view, other than noise, determines it; otherwise the config does.
    """
    name = config.get("_class_name")
    views = {view for row in SOLVERS.values() if row.scheduler == name for view in row.views}
    if len(views) == 1 and View.NOISE not in views:
        return views.pop()
    predicts_flow = config.get("prediction_type") == "flow_prediction"
    return View.FLOW if predicts_flow or config.get("use_flow_sigmas") else View.NOISE


def make_solver(
    config: Mapping[str, Any],
    *,
    name: str | None,
    num_inference_steps: int,
    generator: torch.Generator,
    device: torch.device,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
    flow_shift: float | None = None,
    sigmas_for_all: bool = False,
    noise_schedule: str | None = None,
) -> Solver:
    """Create the solver of one request.

    `config` is the checkpoint's scheduler_config.json. Without a `name`, or with the checkpoint's
    own, its class and config are used unchanged; another name selects that class, created from the
    same config. `generator` is the request's own CPU generator, after the initial noise was drawn
    from it. `sigmas` (before shifting) and `mu` are a flow matching family's schedule, for classes
    that accept one; with `sigmas_for_all` also for those of them that have their own sigmas.
    `flow_shift` replaces the checkpoint's shift, even one that depends on the resolution.

    Raises `InvalidRequest` (its field is `scheduler`, `num_inference_steps` or `flow_shift`) and
    `InvalidCheckpoint`.
    """
    view = view_of(config)
    if flow_shift is not None and view is not View.FLOW:
        raise InvalidRequest("flow_shift", flow_shift, "this model does not use flow matching")
    if flow_shift is not None and not 0 < flow_shift < math.inf:
        raise InvalidRequest("flow_shift", flow_shift, "must be a number above 0")
    scheduler = _make_scheduler(config, name, view, flow_shift, noise_schedule)
    if scheduler.config.get("use_flow_sigmas") and not sigmas_for_all:
        sigmas = None
    _set_timesteps(scheduler, view, num_inference_steps, device, sigmas, mu)
    kind = _SPECIAL.get(type(scheduler).__name__, Solver)
    return (kind if kind.fits(scheduler) else Solver)(scheduler, generator)


@cache
def _scheduler_class(name: str) -> type[Any]:
    kind: type[Any] = getattr(diffusers, name)
    return kind


def _has_marks(config: Mapping[str, Any], marks: Mapping[str, str]) -> bool:
    return all(mark in str(config.get(key)) for key, mark in marks.items())


def _suits(name: str, config: Mapping[str, Any]) -> bool:
    row = SOLVERS[name]
    if config.get("invert_sigmas"):
        return row.inverted_sigmas
    if config.get("prediction_type") == "sample" and not row.sample_prediction:
        return False
    return view_of(config) in row.views


def _make_scheduler(
    config: Mapping[str, Any],
    name: str | None,
    view: View,
    flow_shift: float | None,
    noise_schedule: str | None,
) -> Any:
    kind: Any = own_scheduler_class(config)
    overrides: Mapping[str, object] = {}
    if name is not None and name != default_solver_name(config):
        if name not in solver_names(config):
            allowed = ", ".join(solver_names(config))
            raise InvalidRequest("scheduler", name, f"this model ({view.value}) allows {allowed}")
        kind, overrides = _scheduler_class(SOLVERS[name].scheduler), SOLVERS[name].views[view]
        # A null with a meaning for its own class (Euler's sigma_min) is unset for another class.
        config = {key: value for key, value in config.items() if value is not None}
    values = {**config, **overrides, **_shift(kind, config, view, flow_shift)}
    values |= _SCHEDULE_SETTINGS.get(noise_schedule or OWN_SPACING, {})
    try:
        return kind(**{key: values[key] for key in _accepted(kind) if key in values})
    except (TypeError, ValueError, RuntimeError, IndexError, ImportError) as error:
        raise InvalidCheckpoint(f"scheduler_config.json: {kind.__name__}: {error}") from error


def _shift(
    kind: Any, config: Mapping[str, Any], view: View, flow_shift: float | None
) -> dict[str, Any]:
    """Shift under `kind`'s name: it belongs to the model, not to the config's class."""
    if view is not View.FLOW:
        return {}
    key = "shift" if "shift" in _accepted(kind) else "flow_shift"
    if flow_shift is not None:
        return {key: flow_shift, "use_dynamic_shifting": False}
    configured = config.get("shift", config.get("flow_shift"))
    return {} if configured is None else {key: configured}


@cache
def _accepted(kind: Any) -> frozenset[str]:
    """Arguments of the constructor, without `solver_p`, which is an object and never from a
    file."""
    return frozenset(inspect.signature(kind).parameters) - {"solver_p"}


def _set_timesteps(
    scheduler: Any,
    view: View,
    steps: int,
    device: torch.device,
    sigmas: Sequence[float] | None,
    mu: float | None,
) -> None:
    options: dict[str, Any] = {}
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    if view is View.FLOW:
        # FlowMatchHeunDiscreteScheduler accepts neither: its second-order steps need its own
        # spacing of sigmas, with `shift` alone.
        if sigmas is not None and "sigmas" in accepted:
            options["sigmas"] = np.asarray(sigmas)
        if scheduler.config.get("use_dynamic_shifting") and "mu" in accepted:
            if mu is None:
                raise InvalidCheckpoint("scheduler_config.json: use_dynamic_shifting needs a mu")
            options["mu"] = mu
    if "sigmas" not in options:
        options["num_inference_steps"] = steps
    try:
        with np.errstate(invalid="ignore"):
            scheduler.set_timesteps(device=device, **options)
    except (ValueError, ZeroDivisionError, IndexError) as error:
        allowed = f"not a number of steps that {type(scheduler).__name__} supports: {error}"
        raise InvalidRequest("num_inference_steps", steps, allowed) from error
    if not _is_finite(scheduler):  # shift_terminal divides by the distance to the last sigma
        raise InvalidRequest("num_inference_steps", steps, "too few for the model's noise schedule")
    if _too_many(steps, scheduler):
        raise InvalidRequest(
            "num_inference_steps", steps, "too many for the model's noise schedule"
        )


def _is_finite(scheduler: Any) -> bool:
    """Check the sigmas too: integer timesteps can't show whether they were finite."""
    levels = (scheduler.timesteps, torch.as_tensor(getattr(scheduler, "sigmas", 0.0)))
    return all(bool(each.isfinite().all()) for each in levels)


def _too_many(steps: int, scheduler: Any) -> bool:
    """True if steps coincide (multistep solvers divide by their distance) or leave the schedule."""
    if hasattr(scheduler, "model_outputs"):
        return bool((scheduler.sigmas.diff() >= 0).any())
    if hasattr(scheduler, "alphas_cumprod"):
        trained: int = scheduler.config.num_train_timesteps
        return steps > trained or bool(scheduler.timesteps.max() >= trained)
    return False
