"""One numerical solver a request, for every view of diffusion, on diffusers' scheduler classes."""

from multimodal_gen.runtime.models.schedulers.registry import (
    SOLVERS,
    default_solver_name,
    make_solver,
    solver_names,
)
from multimodal_gen.runtime.models.schedulers.solver import Solver

__all__ = ["SOLVERS", "Solver", "default_solver_name", "make_solver", "solver_names"]
