"""Maps ComfyUI's sampler names to solvers."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.configs.solvers import SOLVERS

_MENU = (
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "ddpm",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
)
"""Order of names in ComfyUI's own menu; others follow."""
SCHEDULES = ("normal", "simple", "sgm_uniform", "ddim_uniform")
"""Timestep spacings that graphs name by default: all mean the model's own. Those with a different
result (karras, exponential, beta, …) are not offered."""


def samplers_of(schedulers: Sequence[str]) -> dict[str, str]:
    """Solver per name, for a model that allows `schedulers`; its own is first. A solver without a
    name in ComfyUI has our name."""
    named: dict[str, str] = {}
    for solver in schedulers:
        for sampler in _names_of(solver):
            named.setdefault(sampler, solver)
    named = dict(sorted(named.items(), key=lambda item: _place(item[0])))
    unnamed = {solver: solver for solver in schedulers if solver not in named.values()}
    own = schedulers[0] if schedulers else None
    return dict(sorted((named | unnamed).items(), key=lambda item: item[1] != own))


def _names_of(solver: str) -> tuple[str, ...]:
    row = SOLVERS.get(solver)
    return () if row is None else row.comfyui


def _place(sampler: str) -> int:
    return _MENU.index(sampler) if sampler in _MENU else len(_MENU)
