"""UniPC, whose linear systems are solved on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied


class UniPCMultistepScheduler(diffusers.UniPCMultistepScheduler):
    """UniPC (Zhao et al. 2023, arXiv:2302.04867), bit for bit as in diffusers' class of this name.

    That one builds and solves its small linear systems on the device, and so waits for it ten times
    in every step. Here everything that follows from the noise levels stays on the CPU.
    """

    step_index: int
    model_outputs: Sequence[Tensor]

    def multistep_uni_p_bh_update(
        self, model_output: Tensor, *, sample: Tensor, order: int
    ) -> Tensor:
        """Latents at the next level; `model_output` is among the scheduler's own already."""
        step = _Step.between(self, self.step_index, order)
        moved = step.along(sample, self.model_outputs[-1])
        if order > 1:
            # The simplified coefficient of order 2 is diffusers', and the authors'.
            weights = torch.tensor([0.5]) if order == 2 else step.weights(order - 1)
            moved = moved - step.gain * self._weighted(step, weights.to(sample.dtype))
        return moved.to(sample.dtype)

    def multistep_uni_c_bh_update(
        self, this_model_output: Tensor, *, last_sample: Tensor, this_sample: Tensor, order: int
    ) -> Tensor:
        """Latents at this level again, now that the model has been evaluated there."""
        step = _Step.between(self, self.step_index - 1, order)
        weights = torch.tensor([0.5]) if order == 1 else step.weights(order)
        weights = weights.to(last_sample.dtype)
        change = weights[-1] * (this_model_output - self.model_outputs[-1])
        if order > 1:
            change = self._weighted(step, weights[:-1]) + change
        moved = step.along(last_sample, self.model_outputs[-1]) - step.gain * change
        return moved.to(last_sample.dtype)

    def _weighted(self, step: _Step, weights: Tensor) -> Tensor:
        """Weighted sum of the differences between the newest model output and earlier ones."""
        newest, *earlier = reversed(self.model_outputs)
        pairs = zip(step.ratios, earlier, strict=False)
        slopes = torch.stack([(output - newest) / ratio for ratio, output in pairs], dim=1)
        return torch.einsum("k,bkc...->bc...", copied(weights, slopes.device), slopes)


class _Step(NamedTuple):
    """Coefficients of the step from one noise level to the next: scalars on the CPU."""

    keep: Tensor
    take: Tensor
    gain: Tensor
    """Factor of the weighted differences: alpha B(h), or sigma B(h) for noise predictions."""
    ratios: list[Tensor]
    """Distance of each earlier level that the order includes, over the step's."""
    span: Tensor
    """h, with the sign of the exponent."""
    normaliser: Tensor
    """B(h)."""

    @classmethod
    def between(cls, scheduler: Any, at: int, order: int) -> _Step:
        """From level `at` of the scheduler to the one after it."""
        alpha, sigma, here = _level(scheduler, at)
        next_alpha, next_sigma, there = _level(scheduler, at + 1)
        h = there - here
        ratios = [(_level(scheduler, at - i)[2] - here) / h for i in range(1, order)]
        kept, scale, span = next_alpha / alpha, next_sigma, h
        if scheduler.predict_x0:
            kept, scale, span = next_sigma / sigma, next_alpha, -h
        growth = span.expm1()
        normaliser = span if scheduler.config.solver_type == "bh1" else growth
        return cls(kept, scale * growth, scale * normaliser, ratios, span, normaliser)

    def along(self, sample: Tensor, output: Tensor) -> Tensor:
        """The first-order step from `sample`."""
        return self.keep * sample - self.take * output

    def weights(self, count: int) -> Tensor:
        """Solve R(r) a = g(h) / B(h), of `count` rows, for the weights of the differences."""
        points = torch.stack([*self.ratios, torch.ones(())])[:count]
        rows = torch.stack([points.pow(power) for power in range(count)])
        phi, factorial, right = self.span.expm1() / self.span - 1, 1, []
        for i in range(2, count + 2):
            right.append(phi * factorial / self.normaliser)
            factorial *= i
            phi = phi / self.span - 1 / factorial
        solved: Tensor = torch.linalg.solve(rows, torch.stack(right))
        return solved


def _level(scheduler: Any, at: int) -> tuple[Tensor, Tensor, Tensor]:
    """(alpha, sigma, lambda) of a noise level; lambda is the logarithm of alpha / sigma."""
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[at])
    return alpha, sigma, alpha.log() - sigma.log()
