"""Noise levels of one request."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import OWN_SPACING, View
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest

_CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
_EVEN = dict.fromkeys(_CURVES, False)
_SETTINGS: Mapping[str, Mapping[str, object]] = {
    OWN_SPACING: {},
    "karras": {"use_karras_sigmas": True, "sigma_schedule": "karras"},
    "exponential": {"use_exponential_sigmas": True, "sigma_schedule": "exponential"},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "simple": {"timestep_spacing": "trailing"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "ddim_uniform": {"timestep_spacing": "leading"},
    "linear_quadratic": {},
}
"""Settings of diffusers' classes for each noise schedule: for noise prediction they are what its
guide to other programs' names says."""
_LARGEST = 1 - 1e-6
"""Largest flow level for solvers that take the logarithm of the signal: UniPC's own limit."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Settings of a request and its family for the noise levels."""

    num_inference_steps: int
    noise_schedule: str = OWN_SPACING
    timestep_spacing: str | None = None
    explicit_sigmas: Sequence[float] = ()
    """The request's own noise levels, without the final 0, before any shift."""
    flow_shift: float | None = None
    """Replaces the checkpoint's shift, even one that depends on the resolution."""
    sigmas: Sequence[float] | None = None
    """The family's noise levels, before the shift, for classes that accept them."""
    sigmas_for_all: bool = False
    """Whether `sigmas` are also for classes that have their own."""
    mu: float | None = None
    """The family's shift for this resolution."""

    @classmethod
    def of(cls, params: SamplingParams, **levels: Any) -> Schedule:
        """Settings of a request; `levels` are its family's."""
        assert params.num_inference_steps is not None
        return cls(
            num_inference_steps=params.num_inference_steps,
            noise_schedule=params.noise_schedule or OWN_SPACING,
            timestep_spacing=params.timestep_spacing,
            explicit_sigmas=params.levels,
            flow_shift=params.flow_shift,
            **levels,
        )

    def settings(self, kind: Any, view: View, config: Mapping[str, Any]) -> dict[str, object]:
        """Settings that create a scheduler of class `kind` for this request."""
        values: dict[str, object] = {}
        if self.explicit_sigmas or self.noise_schedule != OWN_SPACING:
            values |= _EVEN
        if view is not View.FLOW:  # which Euler's class spaces for all
            values |= self.spacing
        if self.timestep_spacing is not None:
            values["timestep_spacing"] = self.timestep_spacing
        return values | (self._shift(kind, config) if view is View.FLOW else {})

    @property
    def spacing(self) -> Mapping[str, object]:
        """Settings for the noise schedule."""
        return _SETTINGS[self.noise_schedule]

    def _shift(self, kind: Any, config: Mapping[str, Any]) -> dict[str, object]:
        """Shift under `kind`'s name: it belongs to the model, not to the config's class."""
        key = "shift" if "shift" in accepted(kind) else "flow_shift"
        if self.flow_shift is not None:
            return {key: self.flow_shift, "use_dynamic_shifting": False, "shift_terminal": None}
        configured = config.get("shift", config.get("flow_shift"))
        return {} if configured is None else {key: configured}


@cache
def accepted(kind: Any) -> frozenset[str]:
    """Arguments of the constructor, without `solver_p`, which is an object and never from a
    file."""
    return frozenset(inspect.signature(kind).parameters) - {"solver_p"}


def set_timesteps(scheduler: Any, view: View, schedule: Schedule) -> None:
    """Set a scheduler's own timesteps and sigmas, on the CPU.

    Raises InvalidRequest (its field is `num_inference_steps`) and InvalidCheckpoint.
    """
    steps = schedule.num_inference_steps
    options = _options(scheduler, view, schedule)
    if "sigmas" not in options:
        options["num_inference_steps"] = steps
    try:
        with np.errstate(invalid="ignore"):
            scheduler.set_timesteps(device="cpu", **options)
    except (ValueError, ZeroDivisionError, IndexError) as error:
        allowed = f"not a number of steps that {type(scheduler).__name__} supports: {error}"
        raise InvalidRequest("num_inference_steps", steps, allowed) from error


def check_levels(scheduler: Any, steps: int) -> None:
    """Check that a number of steps gave usable noise levels. Raises InvalidRequest."""
    if not _is_finite(scheduler):  # shift_terminal divides by the distance to the last sigma
        raise InvalidRequest("num_inference_steps", steps, "too few for the model's noise schedule")
    if _too_many(steps, scheduler):
        raise InvalidRequest(
            "num_inference_steps", steps, "too many for the model's noise schedule"
        )


def install(scheduler: Any, levels: Tensor, timesteps: Tensor) -> None:
    """Replace the levels [S] of a scheduler whose timesteps are set, keeping the last, 0."""
    if hasattr(scheduler, "model_outputs"):
        levels = levels.clamp(max=_LARGEST)
    scheduler.sigmas = torch.cat((levels, levels.new_zeros(1)))
    scheduler.timesteps = timesteps.to(scheduler.timesteps.dtype)


def base_levels(schedule: Schedule, trained: int) -> Sequence[float] | None:
    """Flow levels of a named schedule before the shift; None for the class's own.

    simple: evenly from 1, as many as the steps. sgm_uniform: evenly from 1 to the last trained
    level, which the steps do not reach (Stability AI's generative-models).
    """
    steps = schedule.num_inference_steps
    if schedule.noise_schedule == "simple":
        return list(np.linspace(1, 0, steps, endpoint=False))
    if schedule.noise_schedule == "sgm_uniform":
        return list(np.linspace(1, 1 / trained, steps, endpoint=False))
    return schedule.sigmas


def linear_quadratic(steps: int, threshold: float = 0.025) -> list[float]:
    """Flow levels of Mochi 1 (Genmo): the first half of the steps removes `threshold` of the noise
    evenly, then the steps grow quadratically. They are final: no shift applies."""
    if steps == 1:
        return [1.0]
    even = steps // 2
    slope = threshold / even
    curved = steps - even
    bend = (1 - threshold - slope * curved) / curved**2
    removed = [slope * i for i in range(even)]
    removed += [threshold + slope * i + bend * i**2 for i in range(curved)]
    return [1 - each for each in removed]


def _options(scheduler: Any, view: View, schedule: Schedule) -> dict[str, Any]:
    known = inspect.signature(scheduler.set_timesteps).parameters
    explicit = schedule.explicit_sigmas
    if view is not View.FLOW:
        return {"sigmas": [*explicit, 0.0]} if explicit else {}
    # FlowMatchHeunDiscreteScheduler accepts neither: its second-order steps need its own spacing
    # of sigmas, with `shift` alone.
    options: dict[str, Any] = {}
    given = explicit or schedule.sigmas
    own = scheduler.config.get("use_flow_sigmas") and not schedule.sigmas_for_all
    if given is not None and "sigmas" in known and (explicit or not own):
        options["sigmas"] = np.asarray(given)
    if scheduler.config.get("use_dynamic_shifting") and "mu" in known:
        if schedule.mu is None:
            raise InvalidCheckpoint("scheduler_config.json: use_dynamic_shifting needs a mu")
        options["mu"] = schedule.mu
    return options


def _is_finite(scheduler: Any) -> bool:
    """Check the sigmas too: integer timesteps can't show whether they were finite."""
    levels = (scheduler.timesteps, torch.as_tensor(getattr(scheduler, "sigmas", 0.0)))
    return all(bool(each.isfinite().all()) for each in levels)


def _too_many(steps: int, scheduler: Any) -> bool:
    """True if steps coincide (multistep solvers divide by their distance) or leave the schedule.

    The last step may be empty, but for rounding: it ends at the lowest level, where karras spacing
    arrives early.
    """
    if hasattr(scheduler, "model_outputs"):
        distances = scheduler.sigmas.diff()
        rounding = 1e-5 * scheduler.sigmas[-1]
        return bool((distances[:-1] >= 0).any() or distances[-1] > rounding)
    if hasattr(scheduler, "alphas_cumprod"):
        trained: int = scheduler.config.num_train_timesteps
        return steps > trained or bool(scheduler.timesteps.max() >= trained)
    return False
