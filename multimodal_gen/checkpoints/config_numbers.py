"""Ranges of numbers in configs: outside of them a picture would be noise, black or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from multimodal_gen.errors import InvalidCheckpoint


class _Range(NamedTuple):
    low: float
    high: float
    above: bool = False
    """Whether `low` itself is not allowed."""

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'more than' if self.above else 'at least'} {self.low} and at most {self.high}"


MAY_BE_INFINITE = "lambda_min_clipped"
"""Its usual value, also in files that diffusers saves, is minus infinity: nothing is clipped."""
_FRACTION = _Range(0, 1)
_POSITIVE = _Range(0, 1e6, above=True)
_ANY = _Range(-1e6, 1e6)
_SCHEDULER = {
    "beta_start": _Range(0, 1, above=True),
    "beta_end": _Range(0, 1, above=True),
    "trained_betas": _FRACTION,
    "num_train_timesteps": _Range(1, 100_000),
    "steps_offset": _Range(0, 1000),
    "original_inference_steps": _Range(1, 100_000),
    "timestep_scaling": _POSITIVE,
    "solver_order": _Range(1, 3),
    "shift": _Range(0, 1000, above=True),
    "flow_shift": _Range(0, 1000, above=True),
    "base_shift": _Range(-100, 100),
    "max_shift": _Range(-100, 100),
    "base_image_seq_len": _Range(1, 1 << 20),
    "max_image_seq_len": _Range(1, 1 << 20),
    "shift_terminal": _FRACTION,
    "snr_shift_scale": _POSITIVE,
    "sigma_min": _Range(0, 1e6),
    "sigma_max": _POSITIVE,
    "sigma_data": _POSITIVE,
    "rho": _POSITIVE,
    "clip_sample_range": _POSITIVE,
    "sample_max_value": _POSITIVE,
    "dynamic_thresholding_ratio": _FRACTION,
    MAY_BE_INFINITE: _Range(-math.inf, 100),
}
_VAE = {
    "scaling_factor": _Range(1e-6, 1e6),
    "shift_factor": _ANY,
    "latents_mean": _ANY,
    "latents_std": _POSITIVE,
    "scale_factor_spatial": _Range(1, 64),
    "scale_factor_temporal": _Range(1, 64),
}
_LISTS = ("trained_betas", "latents_mean", "latents_std")


def check_scheduler(config: Mapping[str, Any], name: str) -> None:
    """Raise InvalidCheckpoint for a number in scheduler_config.json that can't be."""
    _check(config, _SCHEDULER, name)


def check_vae(config: Mapping[str, Any], name: str) -> None:
    """Raise InvalidCheckpoint for a number in a VAE's config.json that can't be."""
    _check(config, _VAE, name)
    channels = config.get("z_dim", config.get("latent_channels"))
    for key in ("latents_mean", "latents_std"):
        value = config.get(key)
        if isinstance(value, list) and isinstance(channels, int) and len(value) != channels:
            raise InvalidCheckpoint(f"{name}: {key} must have {channels} numbers, not {len(value)}")


def _check(config: Mapping[str, Any], ranges: Mapping[str, _Range], name: str) -> None:
    for key, allowed in ranges.items():
        value = config.get(key)
        for each in value if isinstance(value, list) and key in _LISTS else (value,):
            if each is not None and each not in allowed:
                raise InvalidCheckpoint(f"{name}: {key}={each} must be {allowed}")
