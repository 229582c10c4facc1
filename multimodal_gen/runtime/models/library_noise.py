"""Noise of stochastic solvers: drawn on the CPU, as the seed demands, and copied without a wait."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import copied


@runtime_checkable
class NoiseSource(Protocol):
    """Takes the place of a generator in a scheduler's step."""

    def draw(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor: ...


def draw_without_waiting(kind: type[Any]) -> None:
    """Let a scheduler class of diffusers draw noise by `_drawn`; no effect if it draws none.

    Its steps take a generator but no noise, and their own function waits for the device.
    """
    module = sys.modules[kind.__module__]
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = _drawn  # type: ignore[attr-defined]


def _drawn(shape: Any, generator: Any = None, device: Any = None, **options: Any) -> Tensor:
    """Draw the same numbers as diffusers' `randn_tensor`."""
    if isinstance(generator, NoiseSource):
        return generator.draw(shape, options.get("dtype") or torch.get_default_dtype())
    target = torch.device(device or "cpu")
    drawn_here = isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    if target.type == "cpu" or not drawn_here:
        noise: Tensor = randn_tensor(shape, generator=generator, device=device, **options)
        return noise
    return copied(torch.randn(shape, generator=generator, **options), target)
