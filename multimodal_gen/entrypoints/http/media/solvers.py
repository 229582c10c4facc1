"""Finds solvers by the names of other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multimodal_gen.configs.solvers import SOLVERS, a1111_name


def solver_named(name: str, allowed: Sequence[str]) -> str | None:
    """Entry of `allowed` that `name` refers to, in any spelling; None if there is none."""
    wanted = _plain(name)
    return next((solver for solver in allowed if wanted in _names(solver)), None)


def components_of_kind(solver: str) -> tuple[str, ...]:
    """Return this project's name of a solver, then its aliases."""
    row = SOLVERS.get(solver)
    return (solver,) if row is None else (solver, *row.aliases)


def _names(solver: str) -> set[str]:
    return {_plain(name) for name in (a1111_name(solver), *components_of_kind(solver))}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
