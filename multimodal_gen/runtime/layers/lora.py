"""LoRA for single rows of a batch (Hu et al. 2021, arXiv:2106.09685): y += scale * up(down(x)).

The model's weights stay unchanged. A layer holds its parts of all loaded LoRAs in a `LoraBank`; the
rows that use each LoRA are an argument of the evaluation, `LoraRows`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoraUse(NamedTuple):
    """A loaded LoRA with the scale of one request."""

    key: int
    scale: float


@dataclass(frozen=True)
class LowRank:
    """One LoRA's term for one layer's output, or for some of its channels.

    `down` has the shape of the layer's weight with `rank` outputs, `up` [channels, rank] (with a
    kernel of 1 for a convolution).
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float
    """alpha / rank"""
    start: int
    """First output channel that it applies to."""

    def product(self, x: Tensor) -> Tensor:
        """up(down(x)) of a linear layer: [..., in] -> [..., channels]."""
        return F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1), self.bias)


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: its terms by module."""

    parts: Mapping[nn.Module, Sequence[LowRank]]
    of_encoders: bool
    """True if it changes the encoding of prompts."""


class RowGroup(NamedTuple):
    """Rows that use a LoRA at one scale; `rows` [n] are their indices, None means all."""

    scale: float
    rows: Tensor | None


class LoraRows:
    """LoRA use per row of a batch. An argument of an evaluation, without side effects."""

    def __init__(self, uses: Sequence[Sequence[LoraUse]], device: torch.device) -> None:
        """Row r uses `uses[r]`."""
        users: defaultdict[LoraUse, list[int]] = defaultdict(list)
        for row, of_row in enumerate(uses):
            for use in of_row:
                users[use].append(row)
        groups: defaultdict[int, list[RowGroup]] = defaultdict(list)
        for use, rows in users.items():
            which = None if len(rows) == len(uses) else torch.tensor(rows, device=device)
            groups[use.key].append(RowGroup(use.scale, which))
        self.total = len(uses)
        self.groups: Mapping[int, Sequence[RowGroup]] = groups


class LoraBank:
    """Terms of all loaded LoRAs for one layer."""

    def __init__(
        self, product: Callable[[LowRank, Tensor], Tensor] = LowRank.product, channels: int = -1
    ) -> None:
        """`channels` is the output dimension that a `LowRank` applies to."""
        self._product = product
        self._channels = channels
        self._parts: dict[int, Sequence[LowRank]] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, key: int, parts: Sequence[LowRank]) -> None:
        self._parts[key] = parts

    def remove(self, key: int) -> None:
        """Free the term of LoRA `key`; no effect if there is none."""
        self._parts.pop(key, None)

    def delta(self, x: Tensor, rows: LoraRows, output: Tensor) -> None:
        """Add the rows' LoRA terms for the layer's input `x` to `output`, in place.

        The first dimension of both is the rows: [R, ...], or [R * n, ...] row by row.
        """
        for key, parts in self._parts.items():
            for group in rows.groups.get(key, ()):
                for part in parts:
                    self._add(part, x, group, rows.total, output)

    def _add(self, part: LowRank, x: Tensor, group: RowGroup, total: int, output: Tensor) -> None:
        output = output.narrow(self._channels, part.start, part.up.shape[0])
        scale = part.scale * group.scale
        if group.rows is None:
            output.add_(self._product(part, x), alpha=scale)
        elif len(x) == total:
            output.index_add_(0, group.rows, self._product(part, x[group.rows]), alpha=scale)
        else:
            if len(x) % total:
                raise RuntimeError(f"LoRA needs {total} rows, not input of shape {tuple(x.shape)}")
            chosen = x.unflatten(0, (total, -1))[group.rows]
            added = self._product(part, chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])
            output.unflatten(0, (total, -1)).index_add_(0, group.rows, added, alpha=scale)
