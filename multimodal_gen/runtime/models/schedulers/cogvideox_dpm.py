"""CogVideoX's DPM-Solver++ (2M, SDE), whose state is passed in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.schedulers.solver import Solver


class CogVideoXDPMSolver(Solver):
    """Keeps the estimate of x0 from one evaluation to the next, for CogVideoXDPMScheduler."""

    def __init__(self, scheduler: Any, generator: torch.Generator, device: torch.device) -> None:
        super().__init__(scheduler, generator, device)
        self._last_x0: Tensor | None = None

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        following, self._last_x0 = self._scheduler.step(
            prediction,
            self._last_x0,
            self._host_timesteps[i],
            self._host_timesteps[i - 1] if i else None,
            latents,
            **self._step_options,
        )
        return following, self._last_x0
