"""Euler's method for flow matching, in the minimum number of operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.schedulers.solver import Solver


class FlowEulerSolver(Solver):
    """x + (sigma' - sigma) v: bit for bit as in diffusers' FlowMatchEulerDiscreteScheduler.

    Most models use this solver, and small ones evaluate in milliseconds, so its step is written out
    here. The differences of sigmas stay float32 tensors on the device, as there: a Python float
    would be multiplied with another precision when v is bfloat16.
    """

    @classmethod
    def fits(cls, scheduler: Any) -> bool:
        """False for a scheduler that draws noise at every step."""
        return not scheduler.config.get("stochastic_sampling")

    def __init__(self, scheduler: Any, generator: torch.Generator, device: torch.device) -> None:
        self._sigmas: list[float] = scheduler.sigmas.tolist()
        self._sigma_steps = copied(scheduler.sigmas.diff(), device).unbind()
        super().__init__(scheduler, generator, device)

    def add_noise(self, clean: Tensor, noise: Tensor, i: int) -> Tensor:
        sigma = self._sigmas[i]
        return sigma * noise + (1 - sigma) * clean

    def noise_level(self, i: int) -> float:
        return self._sigmas[i]

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        following = latents.float() + self._sigma_steps[i] * prediction
        return following.to(prediction.dtype), self._estimate_x0(prediction, i, latents)
