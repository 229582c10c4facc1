"""Finds solvers and noise schedules by the names of other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multimodal_gen.configs.solvers import NOISE_SCHEDULES, SOLVERS, a1111_name, noise_schedules_of

_SCHEDULES = {
    **{name: name for names in NOISE_SCHEDULES.values() for name in names},
    "ddim": "ddim_uniform",
    "ka": "karras",
    "polyexponential": "exponential",  # equal at its default rho of 1
    "uniform": "normal",
}
_WITH_SCHEDULE = re.compile(
    r"(.+?)[ _](ka|karras|(?:poly)?exponential|sgm[ _]?uniform|uniform|simple|beta|normal)",
    re.IGNORECASE,
)
_KIN = (
    ("3m", ("dpmpp_3m_sde", "dpmpp_2m_sde", "dpmpp_2m")),
    ("2msde", ("dpmpp_2m_sde", "dpmpp_2m")),
    ("2s", ("dpmpp_2s", "dpmpp_2m")),
    ("sde", ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m")),
    ("dpm2", ("dpm2", "heun")),
    ("dpm", ("dpmpp_2m", "edm_dpmpp_2m", "unipc")),
    ("resmultistep", ("dpmpp_2m", "edm_dpmpp_2m", "unipc")),
    ("restart", ("heun",)),
    ("heun", ("heun", "flow_heun")),
    ("pndm", ("deis", "pndm")),
    ("euler", ("euler", "edm_euler", "flow_euler")),
)
"""Solvers that come nearest to those whose plain name contains a text, best first."""


def solver_named(name: str, allowed: Sequence[str]) -> str | None:
    """Entry of `allowed` that `name` refers to, in any spelling; None if there is none."""
    wanted = _plain(name)
    return next((solver for solver in allowed if wanted in _names(solver)), None)


def nearest_solver(name: str, allowed: Sequence[str]) -> str | None:
    """Entry of `allowed` that comes nearest to a solver that is not among them: a relative, else
    the first. None if there is none at all."""
    wanted = _plain(name)
    kin = next((solvers for part, solvers in _KIN if part in wanted), ())
    return next((solver for solver in (*kin, *allowed) if solver in allowed), None)


def schedule_named(name: str) -> str | None:
    """Noise schedule that `name` refers to, in any spelling; None if there is none."""
    wanted = _plain(name)
    return next((own for known, own in _SCHEDULES.items() if _plain(known) == wanted), None)


def has_schedule(solver: str | None, schedule: str, allowed: Sequence[str]) -> bool:
    """Return whether a solver supports one of the noise schedules that a model allows."""
    return schedule in allowed and (solver is None or schedule in noise_schedules_of([solver]))


def split_schedule(name: str) -> tuple[str, str | None]:
    """Split names such as `DPM++ 2M Karras` into the solver's and the noise schedule."""
    found = _WITH_SCHEDULE.fullmatch(name)
    return (name, None) if found is None else (found[1], schedule_named(found[2]))


def components_of_kind(solver: str) -> tuple[str, ...]:
    """Return this project's name of a solver, then its aliases."""
    row = SOLVERS.get(solver)
    return (solver,) if row is None else (solver, *row.aliases)


def _names(solver: str) -> set[str]:
    return {_plain(name) for name in (a1111_name(solver), *components_of_kind(solver))}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
