"""A solver of latents of which two parts have noise levels of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.models.schedulers.solver import Solver


class SolverInTwoParts(Solver):
    """Latents [1, N], of which the first `split` numbers are one solver's, and the others
    another's: a video, and its sound. Both have equally many evaluations.

    Timesteps are [E, 2], and their host values those of the first part.
    """

    def __init__(self, first: Solver, second: Solver, split: int) -> None:
        self._parts = (first, second)
        self._split = split
        self.timesteps = torch.stack((first.timesteps, second.timesteps), dim=1)
        self.num_evaluations = first.num_evaluations
        self.stochastic = first.stochastic or second.stochastic

    @property
    def order(self) -> int:
        return self._parts[0].order

    def timestep(self, i: int) -> float:
        return self._parts[0].timestep(i)

    def weigh(self, first: int) -> None:
        """No effect: the parts of a row have weights of their own."""

    def init_noise(self, noise: Tensor) -> Tensor:
        own = zip(self._parts, self._in_two(noise), strict=True)
        return torch.cat([part.init_noise(each) for part, each in own], dim=1)

    def scale_input(self, latents: Tensor, i: int) -> Tensor:
        """As they are: solvers for flows do not scale."""
        return latents

    def step(self, prediction: Tensor, i: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        own = zip(self._parts, self._in_two(prediction), self._in_two(latents), strict=True)
        stepped = [part.step(velocity, i, each) for part, velocity, each in own]
        following, x0 = (torch.cat(each, dim=1) for each in zip(*stepped, strict=True))
        return following, x0

    def _in_two(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, : self._split], x[:, self._split :]
