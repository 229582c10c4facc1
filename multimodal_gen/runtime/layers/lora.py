"""LoRA for single rows of a batch (Hu et al. 2021, arXiv:2106.09685): y += scale * up(down(x)).

The weights of the model stay as they are. A layer holds what each loaded LoRA has for it in a
`LoraBank`; which rows of a batch use which LoRA is an argument of the evaluation, `LoraRows`.
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
    """A loaded LoRA, as one request uses it."""

    key: int
    scale: float


@dataclass(frozen=True)
class LowRank:
    """What one LoRA adds to one layer's output, or to some of its channels.

    `down` is shaped like the layer's weight with `rank` outputs, `up` [channels, rank] (with a
    kernel of 1 for a convolution).
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float
    """alpha / rank"""
    start: int
    """The first of the output's channels that it is for."""

    def product(self, x: Tensor) -> Tensor:
        """up(down(x)) of a linear layer: [..., in] -> [..., channels]."""
        return F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1), self.bias)


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: what it adds to which modules."""

    parts: Mapping[nn.Module, Sequence[LowRank]]
    of_encoders: bool
    """It changes what prompts are encoded to."""


class RowGroup(NamedTuple):
    """The rows that use a LoRA at one scale; `rows` [n] is their index, None stands for all."""

    scale: float
    rows: Tensor | None


class LoraRows:
    """Which rows of a batch use which LoRAs. An argument of an evaluation, with no side effect."""

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
    """What the loaded LoRAs add to one layer."""

    def __init__(
        self, product: Callable[[LowRank, Tensor], Tensor] = LowRank.product, channels: int = -1
    ) -> None:
        """`channels` is the output's dimension that a `LowRank`'s channels are of."""
        self._product = product
        self._channels = channels
        self._parts: dict[int, Sequence[LowRank]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, key: int, parts: Sequence[LowRank]) -> None:
        self._parts[key] = parts

    def remove(self, key: int) -> None:
        """Free what the LoRA `key` has; no effect if it has nothing here."""
        self._parts.pop(key, None)

    def delta(self, x: Tensor, rows: LoraRows, output: Tensor) -> None:
        """Add to `output` what the rows' LoRAs make of the layer's input `x`, in place.

        Both have the rows in front: [R, ...], or [R * n, ...] row by row.
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
                raise RuntimeError(f"{tuple(x.shape)} are not {total} rows, as LoRA needs them")
            chosen = x.unflatten(0, (total, -1))[group.rows]
            added = self._product(part, chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])
            output.unflatten(0, (total, -1)).index_add_(0, group.rows, added, alpha=scale)
