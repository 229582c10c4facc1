"""Solvers: one row each, from which all lists of them are derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class View(Enum):
    """Prediction type of a checkpoint's model, which determines the suitable solvers."""

    NOISE = "noise prediction"
    """epsilon, v or x0 of a variance-preserving schedule: the variational and score-based views."""
    SHIFTED_NOISE = "noise prediction, with the signal-to-noise ratio shifted"
    """CogVideoX's schedule, which is only supported by its own classes."""
    FLOW = "flow matching"


@dataclass(frozen=True, kw_only=True)
class SolverSpec:
    """One solver; `--scheduler` takes its name."""

    name: str
    scheduler: str
    """Its class in diffusers."""
    views: Mapping[View, Mapping[str, object]]
    """Suitable views, each with its settings in the checkpoint's scheduler config."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """For rows that share a class: config settings that identify this row."""
    sample_prediction: bool = True
    """True if it also supports models that predict x0."""
    inverted_sigmas: bool = False
    """True if it also supports schedules with noise at sigma 0 instead of 1."""
    a1111: str | None = None
    """Its name in AUTOMATIC1111."""
    comfyui: tuple[str, ...] = ()
    """Its names in ComfyUI; without one, its own name is used there."""
    aliases: tuple[str, ...] = ()
    """Other names: diffusers' classes, and short names of k-diffusion and related projects."""


_ROWS = (
    SolverSpec(
        name="ddpm",
        scheduler="DDPMScheduler",
        views={View.NOISE: {}},
        a1111="DDPM",
        comfyui=("ddpm",),
        aliases=("DDPMScheduler",),
    ),
    SolverSpec(
        name="ddim",
        scheduler="DDIMScheduler",
        views={View.NOISE: {}},
        a1111="DDIM",
        comfyui=("ddim",),
        aliases=("DDIMScheduler",),
    ),
    SolverSpec(
        name="pndm",
        scheduler="PNDMScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        a1111="PLMS",
        aliases=("PNDMScheduler", "PNDM"),
    ),
    SolverSpec(
        name="euler",
        scheduler="EulerDiscreteScheduler",
        views={View.NOISE: {}},
        a1111="Euler",
        comfyui=("euler",),
        aliases=("EulerDiscreteScheduler", "k_euler"),
    ),
    SolverSpec(
        name="euler_a",
        scheduler="EulerAncestralDiscreteScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        a1111="Euler a",
        comfyui=("euler_ancestral",),
        aliases=("EulerAncestralDiscreteScheduler", "euler_ancestral", "k_euler_a"),
    ),
    SolverSpec(
        name="dpmpp_2m",
        scheduler="DPMSolverMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "dpmsolver++", "solver_order": 2}},
        a1111="DPM++ 2M",
        comfyui=("dpmpp_2m",),
        aliases=("DPMSolverMultistepScheduler", "k_dpmpp_2m"),
    ),
    SolverSpec(
        name="dpmpp_2m_sde",
        scheduler="DPMSolverMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}},
        marks={"algorithm_type": "sde"},
        a1111="DPM++ 2M SDE",
        comfyui=("dpmpp_2m_sde",),
        aliases=("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    ),
    SolverSpec(
        name="edm_euler",
        scheduler="EDMEulerScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        aliases=("EDMEulerScheduler",),
    ),
    SolverSpec(
        name="flow_euler",
        scheduler="FlowMatchEulerDiscreteScheduler",
        views={View.FLOW: {}},
        inverted_sigmas=True,
        a1111="Euler",
        comfyui=("euler",),
        aliases=("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler", "k_euler", "euler"),
    ),
    SolverSpec(
        name="flow_heun",
        scheduler="FlowMatchHeunDiscreteScheduler",
        views={View.FLOW: {}},
        a1111="Heun",
        comfyui=("heun",),
        aliases=("FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler", "k_heun", "heun"),
    ),
    SolverSpec(
        name="unipc",
        scheduler="UniPCMultistepScheduler",
        views={
            View.NOISE: {},
            View.FLOW: {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        },
        a1111="UniPC",
        comfyui=("uni_pc", "uni_pc_bh2"),
        aliases=("UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2"),
    ),
    SolverSpec(
        name="cogvideox_ddim", scheduler="CogVideoXDDIMScheduler", views={View.SHIFTED_NOISE: {}}
    ),
    SolverSpec(
        name="cogvideox_dpm", scheduler="CogVideoXDPMScheduler", views={View.SHIFTED_NOISE: {}}
    ),
)

SOLVERS: Mapping[str, SolverSpec] = {row.name: row for row in _ROWS}
"""By name, in list order."""


def solvers_of(*views: View) -> tuple[str, ...]:
    """Names of the solvers that support any of these views."""
    return tuple(name for name, row in SOLVERS.items() if not row.views.keys().isdisjoint(views))


def scheduler_classes() -> tuple[str, ...]:
    """Classes of diffusers used by the solvers."""
    return tuple(dict.fromkeys(row.scheduler for row in SOLVERS.values()))


def a1111_name(solver: str) -> str:
    """Name of a solver in AUTOMATIC1111, or our own name if that web UI does not have it."""
    row = SOLVERS.get(solver)
    return solver if row is None or row.a1111 is None else row.a1111
