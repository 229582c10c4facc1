"""Estimates x0 for scheduler classes that do not return it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Estimator = Callable[[Tensor, int, Tensor], Tensor]
"""(prediction, evaluation i, its latents) → x0; called after the scheduler's own step."""


def x0_estimator(scheduler: Any) -> Estimator:
    """Return the estimator for a scheduler whose timesteps are set."""
    if _keeps_x0(scheduler):
        return lambda prediction, i, latents: scheduler.model_outputs[-1]
    if _is_flow(scheduler):
        return _flow_estimator(scheduler.sigmas)
    return _noise_estimator(scheduler)


def _flow_estimator(sigmas: Tensor) -> Estimator:
    """An Euler step to the end of the schedule: x - sigma v, or x + (1 - sigma) v for rising
    sigmas."""
    to_end = (sigmas[-1] - sigmas).tolist()
    return lambda velocity, i, latents: torch.add(latents, velocity, alpha=to_end[i])


def _is_flow(scheduler: Any) -> bool:
    """True if the scheduler's model predicts the velocity noise - x0."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    return bool(kind == "flow_prediction")


def _keeps_x0(scheduler: Any) -> bool:
    """True for UniPC and DPM-Solver++, which convert predictions to x0 and keep it for later
    steps."""
    algorithm: str = scheduler.config.get("algorithm_type", "")
    return getattr(scheduler, "predict_x0", False) or algorithm.endswith("++")


def _noise_estimator(scheduler: Any) -> Estimator:
    """x = alpha x0 + sigma noise, solved for x0 given the noise or v = alpha noise - sigma x0."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return lambda prediction, i, latents: prediction
    levels = _noise_levels(scheduler)

    def estimate(prediction: Tensor, i: int, latents: Tensor) -> Tensor:
        alpha, sigma = levels[i]
        if kind == "v_prediction":
            return alpha * latents - sigma * prediction
        return (latents - sigma * prediction) / alpha

    return estimate


def _noise_levels(scheduler: Any) -> list[tuple[float, float]]:
    """(alpha, sigma) of each evaluation, with alpha² + sigma² = 1."""
    if hasattr(scheduler, "sigmas"):
        alphas_squared = 1 / (1 + scheduler.sigmas.double() ** 2)
    else:
        alphas_squared = scheduler.alphas_cumprod[scheduler.timesteps].double()
    return list(
        zip(alphas_squared.sqrt().tolist(), (1 - alphas_squared).sqrt().tolist(), strict=True)
    )
