"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) with several position axes per
token."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

_KEPT = 32

Grid = tuple[int, int]
"""Tokens of an image, down and across."""


def rotary_table(positions: Tensor, axes_dims: Sequence[int], theta: float = 10000.0) -> Tensor:
    """cos and sin of every rotation, [..., S, sum(axes_dims) / 2, 2] in float32.

    `positions` is [..., S, axes]. Angles are computed in float64, as FLUX's reference does.
    """
    angles = []
    for axis, dim in enumerate(axes_dims):
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
        angles.append(positions[..., axis, None].double() / theta**exponents)
    angle = torch.cat(angles, dim=-1)
    return torch.stack((angle.cos(), angle.sin()), dim=-1).float()


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the pairs (2i, 2i + 1) of x [B, S, ..., D], which is float32.

    The table is [S, D / 2, 2], or [B, S, D / 2, 2] where positions differ between the rows.
    """
    pairs = x.view(*x.shape[:-1], x.shape[-1] // 2, 2)
    table = table.view(*table.shape[:-2], *(1,) * (x.dim() - 3), *table.shape[-2:])
    if torch.compiler.is_compiling():  # inductor can't compile complex numbers
        cos, sin = table.unbind(-1)
        even, odd = pairs.unbind(-1)
        rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    else:  # one pass over memory instead of seven
        product = torch.view_as_complex(pairs) * torch.view_as_complex(table)
        rotated = torch.view_as_real(product)
    return rotated.flatten(-2)


def check_table(table: Tensor, tokens: int) -> None:
    """Raise ValueError unless the table [..., S, D / 2, 2] is for this many tokens."""
    if table.shape[-3] != tokens:
        raise ValueError(f"a rotary table for {table.shape[-3]} tokens, not {tokens}")


class RotaryTables:
    """Cache of the tables of the most recent shapes."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, Tensor] = {}

    def get(self, shape: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return the table for `shape`; calls `make` if it is not cached."""
        table = self._tables.get(shape)
        if table is None:
            while len(self._tables) >= _KEPT:
                self._tables.pop(next(iter(self._tables)))
            table = self._tables[shape] = make()
        return table
