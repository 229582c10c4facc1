"""The Euler method for flow matching, in as few operations as it takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.models.schedulers.x0 import flow_estimator


class FlowEulerSolver(Solver):
    """x + (sigma' - sigma) v: bit for bit what diffusers' FlowMatchEulerDiscreteScheduler computes.

    This is the solver of most models, and small models evaluate in milliseconds, so its step is written
    out here. The differences stay float32 tensors on the device: a Python float is multiplied at another
    precision when v is bfloat16.
    """

    def __init__(self, scheduler: Any) -> None:
        self.timesteps = scheduler.timesteps
        self.num_evaluations = len(self.timesteps)
        self._sigma_steps = (scheduler.sigmas[1:] - scheduler.sigmas[:-1]).unbind()
        self._estimate_x0 = flow_estimator(scheduler.sigmas)

    def init_noise(self, noise: Tensor) -> Tensor:
        return noise

    def scale_input(self, latents: Tensor, i: int) -> Tensor:
        return latents

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        following = latents.float() + self._sigma_steps[i] * prediction
        return following.to(prediction.dtype), self._estimate_x0(prediction, i, latents)
