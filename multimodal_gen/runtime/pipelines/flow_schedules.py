"""Flow matching schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from multimodal_gen.configs.sampling_params import SamplingParams


def falling_sigmas(params: SamplingParams) -> list[float]:
    """Evenly spaced from 1 to 1 / steps, before any shift, as set by diffusers' pipelines."""
    steps = params.num_inference_steps
    assert steps is not None
    return torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()


def sigmas_to_zero(params: SamplingParams) -> list[float]:
    """Evenly spaced from 1 to 0, without the 0."""
    steps = params.num_inference_steps
    assert steps is not None
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1].tolist()


def linear_shift(config: Mapping[str, Any], tokens: int, largest: float = 1.15) -> float:
    """mu of the dynamic shift: linear in the image's tokens (diffusers' calculate_shift).

    `largest` is for a scheduler config without `max_shift`.
    """
    base, longest = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", largest)
    slope = (high - low) / (longest - base)
    return float(tokens * slope + low - slope * base)
