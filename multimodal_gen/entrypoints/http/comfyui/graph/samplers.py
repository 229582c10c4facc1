"""Maps ComfyUI's names of samplers and schedulers to solvers and noise schedules."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.configs.solvers import OWN_SPACING, SOLVERS
from multimodal_gen.entrypoints.http.media.solvers import (
    has_schedule,
    nearest_solver,
    schedule_named,
)
from multimodal_gen.messages.model_info import ModelInfo

SAMPLERS = (
    *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2"),
    *("exp_heun_2_x0", "exp_heun_2_x0_sde", "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast"),
    *("dpm_adaptive", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde"),
    *("dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    *("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm"),
    *("lcm", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp"),
    *("res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "gradient_estimation"),
    *("gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver"),
    *("sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2"),
)
"""ComfyUI's own menu of samplers."""
SCHEDULES = (
    *("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"),
    *("linear_quadratic", "kl_optimal"),
)
"""ComfyUI's schedulers; the first is the model's own spacing."""


def samplers_of(schedulers: Sequence[str]) -> dict[str, str]:
    """Solver per name, for a model that allows `schedulers`; its own is first. A solver without a
    name in ComfyUI has our name."""
    named: dict[str, str] = {}
    for solver in schedulers:
        for sampler in _names_of(solver):
            named.setdefault(sampler, solver)
    named = dict(sorted(named.items(), key=lambda item: SAMPLERS.index(item[0])))
    unnamed = {solver: solver for solver in schedulers if solver not in named.values()}
    own = schedulers[0] if schedulers else None
    return dict(sorted((named | unnamed).items(), key=lambda item: item[1] != own))


def menu_of(schedulers: Sequence[str]) -> tuple[str, ...]:
    """All names that are accepted: first those with a solver of their own."""
    return tuple(dict.fromkeys((*samplers_of(schedulers), *SAMPLERS)))


def nearest(sampler: str, schedulers: Sequence[str]) -> tuple[str | None, bool]:
    """The solver for a sampler, or else the nearest one; and whether it is the same. None is the
    model's own."""
    known = samplers_of(schedulers)
    if sampler in known:
        return known[sampler], True
    return nearest_solver(sampler, schedulers), False


def noise_schedule_of(scheduler: str, solver: str | None, model: ModelInfo) -> tuple[str, bool]:
    """The noise schedule for a scheduler, or else `normal`; and whether it is the same."""
    schedule = schedule_named(scheduler)
    if schedule == OWN_SPACING:
        return schedule, True
    if schedule is not None and has_schedule(solver, schedule, model.noise_schedules):
        return schedule, True
    return OWN_SPACING, False


def _names_of(solver: str) -> tuple[str, ...]:
    row = SOLVERS.get(solver)
    return () if row is None else tuple(name for name in row.comfyui if name in SAMPLERS)
