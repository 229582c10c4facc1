"""The solver of one request: what stands between two evaluations of the model."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.schedulers.x0 import x0_estimator


class Solver:
    """One request's numerical solver: stands on one diffusers scheduler instance.

    Evaluation i goes `scale_input(latents, i)` → model → `step(prediction, i, latents)`. Both are
    called for every i from 0, or what `begin` said, to `num_evaluations - 1`, in order; `step`
    once. Multistep solvers keep the tensors given to `step`, so the caller must not write to them
    afterwards.

    A step reads nothing back from the device, but for UniPC, whose linear solve checks its result.
    The stochastic solvers draw their noise on the CPU, as diffusers does with a CPU generator, and
    copy it.
    """

    timesteps: Tensor
    """[E] on the device: what the model is conditioned on, one entry an evaluation."""
    num_evaluations: int
    """E. More than the number of steps for some: 20 steps of Heun are 39, of PNDM 21."""

    def __init__(self, scheduler: Any, generator: torch.Generator) -> None:
        """`scheduler` has its timesteps set, on the device, and is this solver's alone from now on.

        `generator` is the request's own, as left by drawing the initial noise.
        """
        self.timesteps = scheduler.timesteps
        self.num_evaluations = len(self.timesteps)
        self._scheduler = scheduler
        # One wait for the device, here, instead of one in every step: some classes look timesteps
        # up in theirs, or branch on a sigma.
        scheduler.timesteps = self.timesteps.cpu()
        self._host_timesteps: list[float] = scheduler.timesteps.tolist()
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = scheduler.sigmas.cpu()
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        self._scale_model_input = getattr(scheduler, "scale_model_input", None)
        accepted = inspect.signature(scheduler.step).parameters
        self._step_options = {"generator": generator} if "generator" in accepted else {}
        self._estimate_x0 = x0_estimator(scheduler)

    @classmethod
    def fits(cls, scheduler: Any) -> bool:
        """Whether this class can step for `scheduler`, as that one is configured."""
        return True

    @property
    def order(self) -> int:
        """Evaluations a step."""
        return int(getattr(self._scheduler, "order", 1))

    def timestep(self, i: int) -> float:
        """Entry i of `timesteps`, without asking the device for it."""
        return self._host_timesteps[i]

    def begin(self, i: int) -> None:
        """Leave out the evaluations before i: the latents are `add_noise(clean, noise, i)`."""
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(i)

    def add_noise(self, clean: Tensor, noise: Tensor, i: int) -> Tensor:
        """`clean` latents as noisy as those of evaluation i, which is the next one."""
        timestep = self._scheduler.timesteps[i : i + 1]
        if hasattr(self._scheduler, "scale_noise"):
            noisy: Tensor = self._scheduler.scale_noise(clean, timestep, noise)
        else:
            noisy = self._scheduler.add_noise(clean, noise, timestep)
        return noisy

    def init_noise(self, noise: Tensor) -> Tensor:
        """The starting latents for unit normal `noise`."""
        return noise * getattr(self._scheduler, "init_noise_sigma", 1.0)

    def scale_input(self, latents: Tensor, i: int) -> Tensor:
        """What the model sees at evaluation i."""
        if self._scale_model_input is None:
            return latents
        scaled: Tensor = self._scale_model_input(latents, self._host_timesteps[i])
        return scaled

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The latents of evaluation i + 1, and the estimate of x0 at evaluation i.

        `latents` are those before `scale_input`. Arithmetic and the result's dtype are those of the
        diffusers class: most compute in float32 and return the prediction's dtype.
        """
        result = self._scheduler.step(
            prediction, self._host_timesteps[i], latents, return_dict=False, **self._step_options
        )
        x0 = result[1] if len(result) > 1 else self._estimate_x0(prediction, i, latents)
        return result[0], x0
