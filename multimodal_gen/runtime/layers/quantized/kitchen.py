"""Kernels of comfy-kitchen, the extra `quantized`.

On a GPU they rotate and round inputs, multiply and scale in one pass.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
_LEAST_CUDA = 13
"""Version of CUDA that its kernels are compiled for."""
_LARGEST_ERROR = 0.02


def kitchen_product(
    x: Tensor, values: Tensor, scales: Tensor, group: int | None = None
) -> Tensor | None:
    """x Wᵀ [..., rows] for int8 weights [rows, columns], for inputs that are rotated in groups
    first, if a size is given. None where there is no such kernel."""
    if not x.is_cuda or not _works(x.get_device()):
        return None
    return _product(x, values, scales, group)


def _product(x: Tensor, values: Tensor, scales: Tensor, group: int | None) -> Tensor:
    rotation = {} if group is None else {"convrot": True, "convrot_groupsize": group}
    found: Tensor = _kitchen().int8_linear(x, values, scales, None, x.dtype, **rotation)
    return found


@cache
def _kitchen() -> Any:
    return importlib.import_module("comfy_kitchen")


@cache
def _works(index: int) -> bool:
    """True if the package is installed, and computes correctly on this GPU."""
    if int((torch.version.cuda or "0").split(".")[0]) < _LEAST_CUDA:
        return False
    try:
        return is_correct(torch.device("cuda", index))
    except ImportError:
        return False
    except Exception as error:  # whatever its compiled parts raise
        log.warning("comfy-kitchen is not used: %s: %s", type(error).__name__, error)
        return False


def is_correct(device: torch.device) -> bool:
    """True if a product of comfy-kitchen's on `device` is nearly that of floats."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 256, generator=generator)
    values = torch.randint(-127, 128, (64, 256), generator=generator, dtype=torch.int8)
    scales = torch.rand(64, 1, generator=generator) + 0.1
    exact = x @ (values * scales).T
    found = _product(x.to(device), values.to(device), scales.to(device), None).cpu()
    return bool((found - exact).norm() / exact.norm() < _LARGEST_ERROR)
