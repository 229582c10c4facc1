"""Products of 8-bit integers: of quantised weights with inputs that are quantised row by row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)
_PIECE = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Outputs that exist as integers at once: what fits a cache, or a small part of a device."""
_LEAST_ROWS = 32
"""Rows that torch's product needs on a GPU: more than 16."""
UNIT = 8
"""Rows and columns of weights come in units of this many on a GPU."""


def has_int8_product(values: Tensor) -> bool:
    """True where products with these weights [rows, columns] are faster in integers than in
    floats."""
    if values.is_cuda:
        return not any(size % UNIT for size in values.shape) and _works(values.get_device())
    return values.device.type == "cpu" and _has_vnni()


@cache
def _has_vnni() -> bool:
    """True for CPUs with instructions that add up products of four bytes exactly; others would
    saturate."""
    return torch.cpu._is_vnni_supported()


@cache
def _works(index: int) -> bool:
    """True for a GPU that has such products."""
    x, values = torch.ones(1, 64), torch.ones(8, 64, dtype=torch.int8)
    try:
        found = int8_product(x.to(index), values.to(index), x[:, :1].to(index)).cpu()
    except RuntimeError as error:
        log.warning("products of int8 are not used: %s", error)
        return False
    return torch.allclose(found, torch.full((1, 8), 64.0))


def quantized_rows(
    x: Tensor, largest: Callable[[Tensor], Tensor] = lambda own: own
) -> tuple[Tensor, Tensor]:
    """Integers from -127 to 127 and scales [..., 1], which give x [..., columns] as a product.

    `largest` gives the largest magnitudes of whole rows, of which x has some columns.

    Not finite scales belong to rows that are not finite.
    """
    scales = largest(x.abs().amax(-1, keepdim=True)).float().div_(127).clamp_(min=1e-30)
    return (x / scales).round_().to(torch.int8), scales


def int8_product(
    x: Tensor,
    values: Tensor,
    scales: Tensor,
    largest: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    """x Wᵀ: [..., columns] -> [..., rows] for W = values [rows, columns] * scales, [rows, 1] or
    [1, 1]. For `largest` see `quantized_rows`."""
    flat = x.reshape(-1, x.shape[-1])
    count = len(flat)
    if flat.is_cuda and count < _LEAST_ROWS:
        flat = torch.cat((flat, flat.new_zeros(_LEAST_ROWS - count, flat.shape[1])))
    integers, factors = quantized_rows(flat, largest)
    output = flat.new_empty(len(flat), len(values))
    most = max(2 * _LEAST_ROWS, _PIECE.get(x.device.type, _PIECE["cpu"]) // len(values))
    pieces = max(1, -(-len(flat) // most))  # about equal, so that none is too small for a GPU
    for part, factor, into in zip(
        *(each.tensor_split(pieces) for each in (integers, factors, output)), strict=True
    ):
        sums = torch._int_mm(part, values.T)  # [tokens, rows], int32
        into.copy_((sums * factor).mul_(scales.T))
    return output[:count].view(*x.shape[:-1], len(values))
