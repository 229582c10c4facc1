"""Solvers by the names that other programs have for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from multimodal_gen.postprocess.infotext import SAMPLERS

ALIASES: Mapping[str, tuple[str, ...]] = {
    "ddim": ("DDIMScheduler",),
    "ddpm": ("DDPMScheduler",),
    "pndm": ("PNDMScheduler", "PNDM"),
    "euler": ("EulerDiscreteScheduler", "k_euler"),
    "euler_a": ("EulerAncestralDiscreteScheduler", "euler_ancestral", "k_euler_a"),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "k_dpmpp_2m"),
    "dpmpp_2m_sde": ("k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
    "edm_euler": ("EDMEulerScheduler",),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler", "k_euler", "euler"),
    "flow_heun": ("FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler", "k_heun", "heun"),
    "unipc": ("UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2"),
}
"""diffusers' classes, and the short names of k-diffusion's relatives."""


def solver_named(name: str, allowed: Sequence[str]) -> str | None:
    """The one of `allowed` that `name` means, in whatever spelling; None where none does."""
    wanted = _plain(name)
    return next((solver for solver in allowed if wanted in _names(solver)), None)


def _names(solver: str) -> set[str]:
    names = (solver, SAMPLERS.get(solver, solver), *ALIASES.get(solver, ()))
    return {_plain(name) for name in names}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
