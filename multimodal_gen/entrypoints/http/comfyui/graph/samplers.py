"""Maps ComfyUI's names of samplers to solvers."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.configs.solvers import SOLVERS

_NEXT = {
    "euler": "ddim",
    "euler_cfg_pp": "euler",
    "euler_ancestral": "euler",
    "euler_ancestral_cfg_pp": "euler_ancestral",
    "heun": "dpm_2",
    "heunpp2": "heun",
    "exp_heun_2_x0": "heun",
    "exp_heun_2_x0_sde": "dpmpp_sde",
    "dpm_2": "dpmpp_2m",
    "dpm_2_ancestral": "euler_ancestral",
    "lms": "dpmpp_2m",
    "dpm_fast": "dpmpp_2m",
    "dpm_adaptive": "dpmpp_2m",
    "dpmpp_2s_ancestral": "euler_ancestral",
    "dpmpp_2s_ancestral_cfg_pp": "dpmpp_2s_ancestral",
    "dpmpp_sde": "dpmpp_2m_sde",
    "dpmpp_2m": "uni_pc",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m",
    "dpmpp_2m_sde_heun": "dpmpp_2m_sde",
    "dpmpp_3m_sde": "dpmpp_2m_sde",
    "ddpm": "euler_ancestral",
    "lcm": "euler",
    "ipndm": "dpmpp_2m",
    "ipndm_v": "ipndm",
    "deis": "dpmpp_2m",
    "res_multistep": "dpmpp_2m",
    "res_multistep_cfg_pp": "res_multistep",
    "res_multistep_ancestral": "euler_ancestral",
    "res_multistep_ancestral_cfg_pp": "res_multistep_ancestral",
    "gradient_estimation": "euler",
    "gradient_estimation_cfg_pp": "gradient_estimation",
    "er_sde": "dpmpp_2m_sde",
    "seeds_2": "dpmpp_sde",
    "seeds_3": "seeds_2",
    "sa_solver": "dpmpp_2m_sde",
    "sa_solver_pece": "sa_solver",
    "ddim": "",
    "uni_pc": "euler",
    "uni_pc_bh2": "uni_pc",
}
"""ComfyUI's samplers in about the order of its menu, each with the next nearest one: of the same
kind (deterministic or not), then of a lower order."""
SCHEDULES = (
    *("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"),
    *("linear_quadratic", "kl_optimal"),
)
"""Schedules of noise levels, by ComfyUI's names."""
UNSPECIFIC = ("own", "normal", "simple", "sgm_uniform", "ddim_uniform")
"""Those that graphs name by default: the model's own spacing is used."""


def samplers_of(schedulers: Sequence[str]) -> dict[str, str]:
    """Solver per name, for a model that allows `schedulers`; its own is first. A solver without a
    name in ComfyUI has our name."""
    named: dict[str, str] = {}
    for solver in schedulers:
        for sampler in _names_of(solver):
            named.setdefault(sampler, solver)
    order = list(_NEXT)
    named = dict(sorted(named.items(), key=lambda item: order.index(item[0])))
    unnamed = {solver: solver for solver in schedulers if solver not in named.values()}
    own = schedulers[0] if schedulers else None
    return dict(sorted((named | unnamed).items(), key=lambda item: item[1] != own))


def menu_of(schedulers: Sequence[str]) -> tuple[str, ...]:
    """All names that are accepted: first those with a solver of their own."""
    gpu = [f"{name}_gpu" for name in _NEXT if name.endswith(("sde", "sde_heun"))]
    return tuple(dict.fromkeys((*samplers_of(schedulers), *_NEXT, *gpu)))


def nearest(sampler: str, schedulers: Sequence[str]) -> tuple[str | None, bool]:
    """The solver for a sampler, and whether it is the same one; None is the model's own. `_gpu`
    only moves the noise."""
    known = samplers_of(schedulers)
    wanted = name = sampler if sampler in known else sampler.removesuffix("_gpu")
    while name and name not in known:
        name = _NEXT.get(name, "")
    return (known[name], name == wanted) if name else (next(iter(schedulers), None), False)


def _names_of(solver: str) -> tuple[str, ...]:
    row = SOLVERS.get(solver)
    return () if row is None else tuple(name for name in row.comfyui if name in _NEXT)
