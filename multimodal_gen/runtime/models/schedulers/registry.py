"""Which solvers there are, which of them a checkpoint allows, and how one is made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.models.schedulers.cogvideox_dpm import CogVideoXDPMSolver
from multimodal_gen.runtime.models.schedulers.flow_euler import FlowEulerSolver
from multimodal_gen.runtime.models.schedulers.solver import Solver


class View(Enum):
    """What a checkpoint's model predicts, hence which solvers suit it."""

    NOISE = "noise prediction"
    """epsilon, v or x0 of a variance-preserving schedule: the variational and score-based views."""
    SHIFTED_NOISE = "noise prediction, with the signal-to-noise ratio shifted"
    """CogVideoX's schedule, which no class but its own knows."""
    FLOW = "flow matching"


class SolverSpec(NamedTuple):
    scheduler: type[Any]
    """The diffusers class."""
    overrides: Mapping[View, Mapping[str, Any]]
    """For each view it suits, what it sets in the checkpoint's scheduler config."""


SOLVERS: Mapping[str, SolverSpec] = {
    "ddpm": SolverSpec(DDPMScheduler, {View.NOISE: {}}),
    "ddim": SolverSpec(DDIMScheduler, {View.NOISE: {}}),
    "pndm": SolverSpec(PNDMScheduler, {View.NOISE: {}}),
    "euler": SolverSpec(EulerDiscreteScheduler, {View.NOISE: {}}),
    "euler_a": SolverSpec(EulerAncestralDiscreteScheduler, {View.NOISE: {}}),
    "dpmpp_2m": SolverSpec(
        DPMSolverMultistepScheduler,
        {View.NOISE: {"algorithm_type": "dpmsolver++", "solver_order": 2}},
    ),
    "dpmpp_2m_sde": SolverSpec(
        DPMSolverMultistepScheduler,
        {View.NOISE: {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}},
    ),
    "edm_euler": SolverSpec(EDMEulerScheduler, {View.NOISE: {}}),
    "flow_euler": SolverSpec(FlowMatchEulerDiscreteScheduler, {View.FLOW: {}}),
    "flow_heun": SolverSpec(FlowMatchHeunDiscreteScheduler, {View.FLOW: {}}),
    "unipc": SolverSpec(
        UniPCMultistepScheduler,
        {
            View.NOISE: {},
            View.FLOW: {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        },
    ),
    "cogvideox_ddim": SolverSpec(CogVideoXDDIMScheduler, {View.SHIFTED_NOISE: {}}),
    "cogvideox_dpm": SolverSpec(CogVideoXDPMScheduler, {View.SHIFTED_NOISE: {}}),
}
"""Short names, as `--scheduler` takes them."""

_CLASSES = {spec.scheduler.__name__: spec.scheduler for spec in SOLVERS.values()}
_NOT_FOR_SAMPLE_PREDICTION = ("pndm", "euler_a", "edm_euler")


def solver_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The short names that a checkpoint with this scheduler_config allows, its own among them.

    Raises `InvalidCheckpoint` when the config's own class is unknown.
    """
    own = default_solver_name(config)
    return tuple(name for name in SOLVERS if name == own or _suits(name, config))


def default_solver_name(config: Mapping[str, Any]) -> str:
    """The short name of the checkpoint's own scheduler class.

    Raises `InvalidCheckpoint` when the class is unknown.
    """
    own = _own_class(config)
    if own is DPMSolverMultistepScheduler and "sde" in str(config.get("algorithm_type")):
        return "dpmpp_2m_sde"
    return next(name for name, spec in SOLVERS.items() if spec.scheduler is own)


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
) -> Solver:
    """The solver of one request.

    `config` is the checkpoint's scheduler_config.json. Without a `name`, or with the checkpoint's
    own, its class and config are used as they are; another name gives that class, made from the
    same config. `generator` is the request's own CPU generator, after the initial noise was drawn
    from it. `sigmas` (before shifting) and `mu` are a flow matching family's schedule, for the
    classes that take one, and, with `sigmas_for_all`, those among them that know sigmas of their
    own as well; `flow_shift` replaces the checkpoint's shift, also one that depends on
    the resolution.

    Raises `InvalidRequest` (its field is `scheduler`, `num_inference_steps` or `flow_shift`) and
    `InvalidCheckpoint`.
    """
    view = _view(config)
    if flow_shift is not None and view is not View.FLOW:
        raise InvalidRequest("flow_shift", flow_shift, "this model does not use flow matching")
    if flow_shift is not None and not 0 < flow_shift < math.inf:
        raise InvalidRequest("flow_shift", flow_shift, "must be a number above 0")
    scheduler = _make_scheduler(config, name, view, flow_shift)
    if scheduler.config.get("use_flow_sigmas") and not sigmas_for_all:
        sigmas = None
    _set_timesteps(scheduler, view, num_inference_steps, device, sigmas, mu)
    if _is_plain_flow_euler(scheduler):
        return FlowEulerSolver(scheduler, generator)
    if isinstance(scheduler, CogVideoXDPMScheduler):
        return CogVideoXDPMSolver(scheduler, generator)
    return Solver(scheduler, generator)


def _is_plain_flow_euler(scheduler: Any) -> bool:
    is_flow_euler = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return is_flow_euler and not scheduler.config.get("stochastic_sampling")


def _view(config: Mapping[str, Any]) -> View:
    if str(config.get("_class_name")).startswith("CogVideoX"):
        return View.SHIFTED_NOISE
    flow = (
        str(config.get("_class_name")).startswith("FlowMatch")
        or config.get("prediction_type") == "flow_prediction"
        or config.get("use_flow_sigmas")
    )
    return View.FLOW if flow else View.NOISE


def _own_class(config: Mapping[str, Any]) -> type[Any]:
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in _CLASSES:
        raise InvalidCheckpoint(
            f"scheduler_config.json: _class_name={name!r} is not one of {', '.join(_CLASSES)}"
        )
    return _CLASSES[name]


def _suits(name: str, config: Mapping[str, Any]) -> bool:
    if config.get("invert_sigmas"):  # noise at sigma 0 instead of 1: only the Euler class knows it
        return name == "flow_euler"
    if config.get("prediction_type") == "sample" and name in _NOT_FOR_SAMPLE_PREDICTION:
        return False
    return _view(config) in SOLVERS[name].overrides


def _make_scheduler(
    config: Mapping[str, Any], name: str | None, view: View, flow_shift: float | None
) -> Any:
    kind: Any = _own_class(config)
    overrides: Mapping[str, Any] = {}
    if name is not None and name != default_solver_name(config):
        if name not in solver_names(config):
            allowed = ", ".join(solver_names(config))
            raise InvalidRequest("scheduler", name, f"this model ({view.value}) allows {allowed}")
        kind, overrides = SOLVERS[name].scheduler, SOLVERS[name].overrides[view]
        # A null that means something to its own class (Euler's sigma_min) is unset for another.
        config = {key: value for key, value in config.items() if value is not None}
    values = {**config, **overrides, **_shift(kind, config, view, flow_shift)}
    try:
        return kind(**{key: values[key] for key in _accepted(kind) if key in values})
    except (TypeError, ValueError, RuntimeError, IndexError, ImportError) as error:
        raise InvalidCheckpoint(f"scheduler_config.json: {kind.__name__}: {error}") from error


def _shift(
    kind: Any, config: Mapping[str, Any], view: View, flow_shift: float | None
) -> dict[str, Any]:
    """The shift, under `kind`'s name for it: it belongs to the model, not to its config's class."""
    if view is not View.FLOW:
        return {}
    key = "shift" if "shift" in _accepted(kind) else "flow_shift"
    if flow_shift is not None:
        return {key: flow_shift, "use_dynamic_shifting": False}
    configured = config.get("shift", config.get("flow_shift"))
    return {} if configured is None else {key: configured}


@cache
def _accepted(kind: Any) -> frozenset[str]:
    """What the constructor takes; `solver_p` is an object, so never from a file."""
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
        # FlowMatchHeunDiscreteScheduler takes neither: its second-order steps need sigmas spaced by
        # itself, with `shift` alone.
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
        allowed = f"not a number of steps that {type(scheduler).__name__} can take: {error}"
        raise InvalidRequest("num_inference_steps", steps, allowed) from error
    if not _is_finite(scheduler):  # shift_terminal divides by the way to the last
        raise InvalidRequest("num_inference_steps", steps, "too few for the model's noise schedule")
    if _too_many(steps, scheduler):
        raise InvalidRequest(
            "num_inference_steps", steps, "too many for the model's noise schedule"
        )


def _is_finite(scheduler: Any) -> bool:
    """Timesteps may be whole numbers, which can't show what their sigmas were."""
    levels = (scheduler.timesteps, torch.as_tensor(getattr(scheduler, "sigmas", 0.0)))
    return all(bool(each.isfinite().all()) for each in levels)


def _too_many(steps: int, scheduler: Any) -> bool:
    """Whether steps coincide (multistep solvers divide by their distance) or leave the schedule."""
    if hasattr(scheduler, "model_outputs"):
        return bool((scheduler.sigmas.diff() >= 0).any())
    if hasattr(scheduler, "alphas_cumprod"):
        trained: int = scheduler.config.num_train_timesteps
        return steps > trained or bool(scheduler.timesteps.max() >= trained)
    return False
