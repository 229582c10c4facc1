"""Rows of unlike length for kernels that take all rows as one list of tokens."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def row_starts(rows: int, tokens: int, device: torch.device) -> Tensor:
    """Return the starts of `rows` rows of `tokens` tokens, and the end, int32 [rows + 1].

    It is made once for each shape, before a graph of it is captured, and kept for good: graphs read
    it where it lies.
    """
    if torch.compiler.is_compiling():  # a tensor of the trace must not be kept
        return _row_starts.__wrapped__(rows, tokens, device)
    return _row_starts(rows, tokens, device)


@cache
def _row_starts(rows: int, tokens: int, device: torch.device) -> Tensor:
    return torch.arange(rows + 1, dtype=torch.int32, device=device) * tokens
