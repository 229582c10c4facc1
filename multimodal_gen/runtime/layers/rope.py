"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) with several position axes per
token."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

_KEPT = 32
AnyTable = TypeVar("AnyTable")

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


def shared_rotary_table(positions: Tensor, count: int, theta: float) -> Tensor:
    """Table [..., S, 2, 2 R] for `rotate_part_` with the same `count` frequencies on each axis of
    positions [..., S, axes], R in all, computed in float32."""
    steps = torch.arange(count, dtype=torch.float32, device=positions.device) / count
    angles = (positions.float().unsqueeze(-1) * (1.0 / theta**steps)).flatten(-2)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)), dim=-2)


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


def apply_rotary_in_halves(x: Tensor, table: Tensor, width: int) -> Tensor:
    """Rotate the pairs (i, i + D / 2) of each head of x [B, S, ..., H * D], which is float32; D is
    `width`, and the table [S, H * D / 2, 2].

    The two of a pair are next to each other in the result, which products of queries and keys do
    not depend on.
    """
    heads, half = x.shape[-1] // width, width // 2
    first, second = x.unflatten(-1, (heads, 2, half)).unbind(-2)
    table = table.view(len(table), *(1,) * (x.dim() - 3), heads, half, 2)
    return _turned(first, second, table).flatten(-3)


def rotate_part_(x: Tensor, table: Tensor) -> None:
    """Rotate the pairs (i, i + R) of the first 2 R features of x [B, S, ..., D], which is float32,
    in place.

    The table [B, S, ..., 2, 2 R] holds the cos of every feature, then the sin by which the other
    one of its pair is multiplied: negative for the first half.
    """
    cos, sin = table.unbind(-2)
    part = x[..., : cos.shape[-1]]
    others = part.roll(cos.shape[-1] // 2, -1)
    part.mul_(cos).addcmul_(others, sin)


def _turned(first: Tensor, second: Tensor, table: Tensor) -> Tensor:
    """Pairs [..., 2] of `first` and `second` [...], rotated by a table [..., 2]."""
    if torch.compiler.is_compiling():  # inductor can't compile complex numbers
        cos, sin = table.unbind(-1)
        return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.view_as_real(torch.complex(first, second) * torch.view_as_complex(table))


def check_table(table: Tensor, tokens: int) -> None:
    """Raise ValueError unless the table [..., S, D / 2, 2] is for this many tokens."""
    if table.shape[-3] != tokens:
        raise ValueError(f"a rotary table for {table.shape[-3]} tokens, not {tokens}")


class RotaryTables(Generic[AnyTable]):
    """Cache of the tables of the most recent shapes."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._tables: dict[Hashable, AnyTable] = {}

    def get(self, shape: Hashable, make: Callable[[], AnyTable]) -> AnyTable:
        """Return the table for `shape`; calls `make` if it is not cached."""
        table = self._tables.get(shape)
        if table is None:
            while len(self._tables) >= self._kept:
                self._tables.pop(next(iter(self._tables)))
            table = self._tables[shape] = make()
        return table
