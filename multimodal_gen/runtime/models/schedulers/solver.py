"""The solver of one request: everything between two evaluations of the model."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.models.schedulers.noise import StepNoise
from multimodal_gen.runtime.models.schedulers.step_weights import (
    StepWeights,
    TrialNoise,
    weights_of,
)
from multimodal_gen.runtime.models.schedulers.x0 import x0_estimator


class Solver:
    """Numerical solver of one request, on top of one diffusers scheduler instance.

    Evaluation i is `scale_input(latents, i)` → model → `step(prediction, i, latents)`. Both are
    called for every i from 0, or from the argument of `begin`, to `num_evaluations - 1`, in order;
    `step` only once. Multistep solvers keep the tensors passed to `step`, so the caller must not
    write to them afterwards.

    A step never waits for the device. Stochastic solvers draw their noise on the CPU, as diffusers
    does with a CPU generator, and copy it.

    Once it has `weights`, its steps are taken by them, together with those of others, and neither
    `scale_input` nor `step` is called any more.
    """

    returns_x0: ClassVar[bool] = True
    """Whether a second result of the scheduler's step, if any, is the estimate of x0."""
    stochastic: bool = False
    """True if its steps add noise."""
    timesteps: Tensor
    """[E] on the device: the model's timestep per evaluation."""
    num_evaluations: int
    """E. Some solvers have more than steps: 20 steps are 39 for Heun, 21 for PNDM."""
    weights: StepWeights | None = None
    """Its steps as weighted sums; None until `weigh`, and for solvers whose steps are none."""
    noise: StepNoise
    """Noise that its steps add, if it has weights."""

    def __init__(
        self, scheduler: Any, generator: torch.Generator | TrialNoise, device: torch.device
    ) -> None:
        """`scheduler` has its timesteps set, on the CPU, and must not be shared from now on.

        `generator` is the request's own, after the initial noise was drawn.
        """
        self.timesteps = copied(scheduler.timesteps, device)
        self.num_evaluations = len(self.timesteps)
        self._scheduler = scheduler
        self._generator, self._device = generator, device
        self._host_timesteps: list[float] = scheduler.timesteps.tolist()
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        self._scale_model_input = getattr(scheduler, "scale_model_input", None)
        accepted = inspect.signature(scheduler.step).parameters
        given = {"generator": generator, "eta": 0.0}  # the default of diffusers' pipelines
        self._step_options = {name: value for name, value in given.items() if name in accepted}
        self._estimate_x0 = x0_estimator(scheduler)

    @classmethod
    def fits(cls, scheduler: Any) -> bool:
        """True if this class supports `scheduler` as configured."""
        return True

    @property
    def order(self) -> int:
        """Evaluations per step."""
        return int(getattr(self._scheduler, "order", 1))

    def timestep(self, i: int) -> float:
        """Entry i of `timesteps`, without waiting for the device."""
        return self._host_timesteps[i]

    def begin(self, i: int) -> None:
        """Skip the evaluations before i: the latents are `add_noise(clean, noise, i)`."""
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(i)

    def weigh(self, first: int) -> None:
        """Find the weights of its steps from evaluation `first` on, where `begin` left it."""
        self.weights = weights_of(self._scheduler, first, type(self))
        if self.weights is not None:
            assert isinstance(self._generator, torch.Generator)
            self.noise = StepNoise(self.weights, self._generator, self._device)

    def add_noise(self, clean: Tensor, noise: Tensor, i: int) -> Tensor:
        """Add noise to `clean` latents up to the level of evaluation i, which is the next one."""
        kept, added = self._noise_level(i, clean.dtype)
        return kept * clean + added * noise

    def noise_level(self, i: int) -> float:
        """Factor of the noise at evaluation i, which is the next one: sigma, for a flow."""
        return self._noise_level(i, torch.float32)[1]

    def _noise_level(self, i: int, dtype: torch.dtype) -> list[float]:
        """Factors of the clean latents and of the noise: the scheduler tells them on the CPU, as
        what it makes of (1, 0) and (0, 1), since it would wait for a device."""
        clean, noise = torch.eye(2, dtype=dtype)
        if self.weights is not None:  # the scheduler takes no steps, so it is told where it is
            self.begin(i)
        timestep = self._scheduler.timesteps[i : i + 1]
        if hasattr(self._scheduler, "scale_noise"):
            factors: Tensor = self._scheduler.scale_noise(clean, timestep, noise)
        else:
            factors = self._scheduler.add_noise(clean, noise, timestep)
        return factors.tolist()

    def init_noise(self, noise: Tensor) -> Tensor:
        """Scale unit normal `noise` to starting latents."""
        return noise * getattr(self._scheduler, "init_noise_sigma", 1.0)

    def scale_input(self, latents: Tensor, i: int) -> Tensor:
        """Model input at evaluation i."""
        if self._scale_model_input is None:
            return latents
        scaled: Tensor = self._scale_model_input(latents, self._host_timesteps[i])
        return scaled

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of evaluation i + 1, and the estimate of x0 at evaluation i.

        `latents` are those before `scale_input`. Arithmetic and result dtype are those of the
        diffusers class: most compute in float32 and return the prediction's dtype.
        """
        result = self._scheduler.step(
            prediction, self._host_timesteps[i], latents, return_dict=False, **self._step_options
        )
        x0 = (
            result[1]
            if len(result) > 1 and self.returns_x0
            else self._estimate_x0(prediction, i, latents)
        )
        return result[0], x0
