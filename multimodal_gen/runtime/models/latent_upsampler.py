"""Models that enlarge latents of videos, between two passes: LTX-2's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from torch import Tensor

MARK = "post_upsample_res_blocks.0.conv1.weight"
"""A tensor that these models have, and no others."""
_RATIONAL = {2: 2.0, 3: 1.5, 4: 4.0}
"""Scales by the factor by which the model enlarges before it shrinks."""


class LatentUpsampler:
    """Latents are the VAE's own, [1, C, T, h, w]."""

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self._module = module

    @property
    def scale(self) -> float:
        config = self._module.config
        return float(config.rational_spatial_scale) if config.use_rational_resampler else 2.0

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self._module.config.in_channels)

    def __call__(self, latents: Tensor) -> Tensor:
        enlarged: Tensor = self._module(latents.to(self._module.dtype))
        return enlarged

    @classmethod
    def of(cls, name: str, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> LatentUpsampler:
        """Create it from a file's tensors, whose shapes tell its config. Raises ValueError."""
        with torch.device("meta"):
            module = LTX2LatentUpsamplerModel(**_config(tensors))
        own = {key: each.to(dtype) for key, each in tensors.items()}
        missing, unexpected = module.load_state_dict(own, strict=False, assign=True)
        if unknown := [*missing, *unexpected]:
            raise ValueError(f"{unknown[0]} is missing or not known")
        return cls(name, module.eval().requires_grad_(requires_grad=False))


def _config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    first = tensors["initial_conv.weight"]
    width = first.shape[0]
    rational = tensors.get("upsampler.conv.weight")
    plain = tensors.get("upsampler.0.weight")
    grown = rational if rational is not None else plain
    if grown is None or (rational is None and (grown.dim() != 4 or grown.shape[0] != 4 * width)):
        raise ValueError("only models that enlarge height and width are supported")
    return {
        "in_channels": first.shape[1],
        "mid_channels": width,
        "num_blocks_per_stage": len({k.split(".")[1] for k in tensors if k.startswith("res_bl")}),
        "dims": first.dim() - 2,
        "use_rational_resampler": rational is not None,
        "rational_spatial_scale": _RATIONAL[math.isqrt(grown.shape[0] // width)],
    }
