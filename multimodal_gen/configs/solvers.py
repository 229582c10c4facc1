"""Solvers: one row each, from which all lists of them are derived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class View(Enum):
    """Prediction type of a checkpoint's model, which determines the suitable solvers."""

    NOISE = "noise prediction"
    """epsilon, v or x0 of a variance-preserving schedule: the variational and score-based views."""
    SHIFTED_NOISE = "noise prediction, with the signal-to-noise ratio shifted"
    """CogVideoX's schedule, which is only supported by its own classes."""
    PRECONDITIONED = "noise prediction, preconditioned for a range of noise levels"
    """EDM's schedule: the model is told a noise level, not a training timestep."""
    FLOW = "flow matching"


OWN_SPACING = "normal"
_CURVES = ("karras", "exponential", "beta")
_SPACINGS = ("simple", "sgm_uniform", "ddim_uniform")
NOISE_SCHEDULES: Mapping[View, tuple[str, ...]] = {
    View.NOISE: (OWN_SPACING, *_CURVES, "lu", *_SPACINGS),
    View.SHIFTED_NOISE: (OWN_SPACING, *_SPACINGS),
    View.PRECONDITIONED: (OWN_SPACING, "karras", "exponential"),
    View.FLOW: (OWN_SPACING, *_CURVES, "simple", "sgm_uniform", "linear_quadratic"),
}
"""Ways to space a request's noise levels, in the names of k-diffusion, AUTOMATIC1111 and ComfyUI;
`normal` is the checkpoint's own."""
_A1111_SCHEDULES = {
    OWN_SPACING: "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "simple": "Simple",
    "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM",
}
SCHEDULE_PARAMETERS: Mapping[View, tuple[str, ...]] = {
    View.NOISE: ("timestep_spacing", "sigmas"),
    View.SHIFTED_NOISE: ("timestep_spacing",),
    View.PRECONDITIONED: (),
    View.FLOW: ("flow_shift", "sigmas"),
}
"""Sampling parameters that models of a view support."""
_CURVED = (OWN_SPACING, *_CURVES, *_SPACINGS)
_STEPPED = (OWN_SPACING, *_SPACINGS)
"""For solvers that step over training timesteps, not over noise levels."""


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
    stochastic: bool = False
    """True if its steps add noise."""
    inverted_sigmas: bool = False
    """True if it also supports schedules with noise at sigma 0 instead of 1."""
    noise_schedules: tuple[str, ...] = (OWN_SPACING,)
    """Those of `NOISE_SCHEDULES` that its class, or its arithmetic, supports."""
    a1111: str | None = None
    """Its name in AUTOMATIC1111."""
    comfyui: tuple[str, ...] = ()
    """Its names in ComfyUI; without one, its own name is used there."""
    explicit_sigmas: bool = False
    """Whether its class takes the noise levels of a request one by one."""
    replaces: tuple[str, ...] = ()
    """Other classes of diffusers that it stands in for, where a checkpoint names one."""
    aliases: tuple[str, ...] = ()
    """Other names: diffusers' classes, and short names of k-diffusion and related projects."""


_LOWER = {"lower_order_final": True}
"""A last step of full order divides by zero, but configs of single-step DPM-Solver ask for it."""
_ROWS = (
    SolverSpec(
        name="ddpm",
        stochastic=True,
        scheduler="DDPMScheduler",
        views={View.NOISE: {}},
        noise_schedules=_STEPPED,
        a1111="DDPM",
        comfyui=("ddpm",),
        aliases=("DDPMScheduler",),
        replaces=("DDPMParallelScheduler",),
    ),
    SolverSpec(
        name="ddim",
        scheduler="DDIMScheduler",
        views={View.NOISE: {}},
        noise_schedules=_STEPPED,
        a1111="DDIM",
        comfyui=("ddim",),
        aliases=("DDIMScheduler",),
        replaces=("DDIMParallelScheduler",),
    ),
    SolverSpec(
        name="pndm",
        scheduler="PNDMScheduler",
        views={View.NOISE: {}},
        noise_schedules=_STEPPED,
        sample_prediction=False,
        a1111="PLMS",
        aliases=("PNDMScheduler", "PNDM"),
    ),
    SolverSpec(
        name="euler",
        scheduler="EulerDiscreteScheduler",
        views={View.NOISE: {}},
        noise_schedules=_CURVED,
        explicit_sigmas=True,
        a1111="Euler",
        comfyui=("euler",),
        aliases=("EulerDiscreteScheduler", "k_euler"),
    ),
    SolverSpec(
        name="euler_a",
        stochastic=True,
        scheduler="EulerAncestralDiscreteScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        noise_schedules=_CURVED,
        a1111="Euler a",
        comfyui=("euler_ancestral",),
        aliases=("EulerAncestralDiscreteScheduler", "euler_ancestral", "k_euler_a"),
    ),
    SolverSpec(
        name="heun",
        scheduler="HeunDiscreteScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        noise_schedules=_CURVED,
        a1111="Heun",
        comfyui=("heun",),
        aliases=("HeunDiscreteScheduler", "k_heun"),
    ),
    SolverSpec(
        name="lms",
        scheduler="LMSDiscreteScheduler",
        views={View.NOISE: {}},
        noise_schedules=_CURVED,
        a1111="LMS",
        comfyui=("lms",),
        aliases=("LMSDiscreteScheduler", "k_lms"),
    ),
    SolverSpec(
        name="dpm2",
        scheduler="KDPM2DiscreteScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        noise_schedules=_CURVED,
        a1111="DPM2",
        comfyui=("dpm_2",),
        aliases=("KDPM2DiscreteScheduler", "k_dpm_2"),
    ),
    SolverSpec(
        name="dpm2_a",
        stochastic=True,
        scheduler="KDPM2AncestralDiscreteScheduler",
        views={View.NOISE: {}},
        sample_prediction=False,
        noise_schedules=_CURVED,
        a1111="DPM2 a",
        comfyui=("dpm_2_ancestral",),
        aliases=("KDPM2AncestralDiscreteScheduler", "k_dpm_2_a", "dpm_2_ancestral"),
    ),
    SolverSpec(
        name="dpmpp_2m",
        scheduler="DPMSolverMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "dpmsolver++", "solver_order": 2}},
        noise_schedules=(*_CURVED, "lu", "linear_quadratic"),
        a1111="DPM++ 2M",
        comfyui=("dpmpp_2m",),
        aliases=("DPMSolverMultistepScheduler", "k_dpmpp_2m"),
    ),
    SolverSpec(
        name="dpmpp_2m_sde",
        stochastic=True,
        scheduler="DPMSolverMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}},
        marks={"algorithm_type": "sde"},
        noise_schedules=(*_CURVED, "lu"),
        a1111="DPM++ 2M SDE",
        comfyui=("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        aliases=("k_dpmpp_2m_sde",),
        replaces=("SASolverScheduler",),
    ),
    SolverSpec(
        name="dpmpp_3m_sde",
        stochastic=True,
        scheduler="DPMSolverMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, **_LOWER}},
        marks={"algorithm_type": "sde", "solver_order": "3"},
        noise_schedules=(*_CURVED, "lu"),
        a1111="DPM++ 3M SDE",
        comfyui=("dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
        aliases=("k_dpmpp_3m_sde",),
    ),
    SolverSpec(
        name="dpmpp_2s",
        scheduler="DPMSolverSinglestepScheduler",
        views={View.NOISE: {"algorithm_type": "dpmsolver++", "solver_order": 2}},
        noise_schedules=(OWN_SPACING, *_CURVES),
        aliases=("DPMSolverSinglestepScheduler",),
    ),
    SolverSpec(
        name="dpmpp_sde",
        stochastic=True,
        scheduler="DPMSolverSinglestepScheduler",
        views={View.NOISE: {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}},
        marks={"algorithm_type": "sde"},
        noise_schedules=(OWN_SPACING, *_CURVES),
        a1111="DPM++ SDE",
        comfyui=("dpmpp_sde", "dpmpp_sde_gpu"),
        aliases=("k_dpmpp_sde",),
        replaces=("DPMSolverSDEScheduler",),
    ),
    SolverSpec(
        name="deis",
        scheduler="DEISMultistepScheduler",
        views={View.NOISE: {"algorithm_type": "deis"}},
        noise_schedules=_CURVED,
        a1111="DEIS",
        comfyui=("deis",),
        aliases=("DEISMultistepScheduler",),
        replaces=("IPNDMScheduler",),
    ),
    SolverSpec(
        name="lcm",
        stochastic=True,
        scheduler="LCMScheduler",
        views={View.NOISE: {}},
        a1111="LCM",
        comfyui=("lcm",),
        aliases=("LCMScheduler",),
    ),
    SolverSpec(
        name="tcd",
        scheduler="TCDScheduler",
        views={View.NOISE: {}},
        a1111="TCD",
        aliases=("TCDScheduler",),
    ),
    SolverSpec(
        name="edm_euler",
        scheduler="EDMEulerScheduler",
        views={View.PRECONDITIONED: {}},
        sample_prediction=False,
        noise_schedules=NOISE_SCHEDULES[View.PRECONDITIONED],
        a1111="Euler",
        comfyui=("euler",),
        aliases=("EDMEulerScheduler", "EulerDiscreteScheduler", "k_euler", "euler"),
    ),
    SolverSpec(
        name="edm_dpmpp_2m",
        scheduler="EDMDPMSolverMultistepScheduler",
        views={View.PRECONDITIONED: {"algorithm_type": "dpmsolver++", "solver_order": 2}},
        sample_prediction=False,
        noise_schedules=NOISE_SCHEDULES[View.PRECONDITIONED],
        a1111="DPM++ 2M",
        comfyui=("dpmpp_2m",),
        aliases=(
            "EDMDPMSolverMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "k_dpmpp_2m",
            "dpmpp_2m",
        ),
    ),
    SolverSpec(
        name="flow_euler",
        scheduler="FlowMatchEulerDiscreteScheduler",
        views={View.FLOW: {}},
        inverted_sigmas=True,
        noise_schedules=NOISE_SCHEDULES[View.FLOW],
        explicit_sigmas=True,
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
        name="flow_lcm",
        stochastic=True,
        scheduler="FlowMatchLCMScheduler",
        views={View.FLOW: {}},
        noise_schedules=NOISE_SCHEDULES[View.FLOW],
        explicit_sigmas=True,
        a1111="LCM",
        comfyui=("lcm",),
        aliases=("FlowMatchLCMScheduler", "LCMScheduler", "lcm"),
    ),
    SolverSpec(
        name="unipc",
        scheduler="UniPCMultistepScheduler",
        views={
            View.NOISE: _LOWER,
            View.FLOW: {"prediction_type": "flow_prediction", "use_flow_sigmas": True, **_LOWER},
        },
        noise_schedules=(*_CURVED, "linear_quadratic"),
        explicit_sigmas=True,
        a1111="UniPC",
        comfyui=("uni_pc", "uni_pc_bh2"),
        aliases=("UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2"),
    ),
    SolverSpec(
        name="cogvideox_ddim",
        scheduler="CogVideoXDDIMScheduler",
        views={View.SHIFTED_NOISE: {}},
        noise_schedules=_STEPPED,
    ),
    SolverSpec(
        name="cogvideox_dpm",
        stochastic=True,
        scheduler="CogVideoXDPMScheduler",
        views={View.SHIFTED_NOISE: {}},
        noise_schedules=_STEPPED,
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


def a1111_schedule(noise_schedule: str) -> str:
    """Label of a noise schedule in AUTOMATIC1111, or our own name if that web UI lacks it."""
    return _A1111_SCHEDULES.get(noise_schedule, noise_schedule)


def noise_schedules_of(
    solvers: Iterable[str], views: Iterable[View] = tuple(View)
) -> tuple[str, ...]:
    """Names of the noise schedules that any of these solvers supports, `normal` first."""
    supported = {name for solver in solvers for name in SOLVERS[solver].noise_schedules}
    known = dict.fromkeys(name for view in views for name in NOISE_SCHEDULES[view])
    return tuple(name for name in known if name in supported)
