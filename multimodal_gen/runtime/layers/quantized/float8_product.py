"""Products of float8 weights with inputs that are rounded to float8, row by row."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WEIGHTS = torch.float8_e4m3fn
"""Type of weights, and of the rounded inputs. (Products of E5M2 need one scale for all rows of the
inputs, with which rows of a batch would change each other.)"""
_UNIT = 16
"""Rows and columns of weights come in units of this many."""
_LEAST_CAPABILITY = (8, 9)
_LARGEST_ERROR = 0.1


def has_float8_product(values: Tensor) -> bool:
    """True where products with these weights [rows, columns], as bytes, can be computed without
    unpacking them."""
    if not values.is_cuda or any(size % _UNIT for size in values.shape):
        return False
    return _works(values.device.index)


@cache
def _works(index: int) -> bool:
    """True for a device that has such products, and computes them correctly here."""
    if torch.cuda.get_device_capability(index) < _LEAST_CAPABILITY:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(each, 64, generator=generator) for each in (5, 32))
    values, scales = weight.to(WEIGHTS).to(index), torch.ones(32, 1, device=index)
    try:
        found = float8_product(x.to(index, torch.bfloat16), values, scales).float().cpu()
    except RuntimeError as error:
        log.warning("no float8 products on this device: %s", error)
        return False
    wanted = x @ values.float().cpu().T
    return bool((found - wanted).norm() <= _LARGEST_ERROR * wanted.norm())


def float8_product(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """x Wᵀ: [..., columns] -> [..., rows], for W = values [rows, columns] * scales [rows, 1]."""
    flat = x.reshape(-1, x.shape[-1])
    largest = flat.abs().amax(-1, keepdim=True).float()
    factors = (largest / torch.finfo(WEIGHTS).max).clamp_(min=1e-30)
    output = torch._scaled_mm(
        (flat / factors).to(WEIGHTS),
        values.T,
        scale_a=factors,
        scale_b=scales.T.contiguous(),
        out_dtype=torch.bfloat16,
    )
    return output.to(x.dtype).view(*x.shape[:-1], len(values))
