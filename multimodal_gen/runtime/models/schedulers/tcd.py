"""TCD's solver."""

from __future__ import annotations

from multimodal_gen.runtime.models.schedulers.solver import Solver


class TCDSolver(Solver):
    """TCDScheduler's second result is the estimate at an earlier timestep, which is noisy."""

    returns_x0 = False
