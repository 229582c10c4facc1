"""LoRA for single rows of a batch (Hu et al. 2021, arXiv:2106.09685): y += scale * up(down(x)).

The weights of the model stay as they are. A module that some loaded LoRA has weights for gets a
forward hook; it adds to those rows of the output whose request asked for that LoRA.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.patches import PatchLinear

_CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
ADAPTABLE: tuple[type[nn.Module], ...] = (nn.Linear, PatchLinear, *_CONVOLUTIONS)
"""Modules that can have a LoRA."""


class LoraUse(NamedTuple):
    """A loaded LoRA, as one request uses it."""

    key: int
    scale: float


@dataclass(frozen=True)
class LowRank:
    """What one LoRA adds to one module's output, or to some channels of it.

    `down` is shaped like the module's weight with `rank` outputs, `up` [channels, rank] (with a
    kernel of 1 for a convolution).
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float
    """alpha / rank"""
    start: int
    """The first of the output's channels that it is for."""

    def of(self, module: nn.Module, x: Tensor) -> Tensor:
        """up(down(x)), with the module's own stride and padding."""
        convolve = _CONVOLUTIONS.get(type(module))
        if convolve is None:
            return F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1), self.bias)
        assert isinstance(module, nn.modules.conv._ConvNd)
        return convolve(module._conv_forward(x, self.down, None), self.up, self.bias)


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: what it adds to which modules."""

    parts: Mapping[nn.Module, Sequence[LowRank]]
    of_encoders: bool
    """It changes what prompts are encoded to."""


class _Rows(NamedTuple):
    """Who uses a LoRA at one scale: so many rows there are, and which (None: all of them)."""

    scale: float
    total: int
    which: Tensor | None


Active = dict[int, list[_Rows]]


class Adapters:
    """The LoRAs that a pipeline has loaded, and which rows of its batch they act on just now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._hooks: dict[nn.Module, _Hook] = {}
        self._of_encoders: set[int] = set()
        self._uses: Sequence[Sequence[LoraUse]] = ()
        self.active: Active = {}
        self._prepared: tuple[list[Sequence[LoraUse]], Active] = ([], {})

    def add(self, key: int, lora: Lora) -> None:
        """Make a LoRA known by `key`, which no other has had."""
        for module, low_ranks in lora.parts.items():
            if module not in self._hooks:
                self._hooks[module] = _Hook(self, module)
            self._hooks[module].parts[key] = low_ranks
        if lora.of_encoders:
            self._of_encoders.add(key)

    def remove(self, key: int) -> None:
        """Free it; without effect on one that isn't there."""
        self._of_encoders.discard(key)
        for module, hook in list(self._hooks.items()):
            hook.parts.pop(key, None)
            if not hook.parts:
                hook.handle.remove()
                del self._hooks[module]

    @contextmanager
    def rows(self, uses: Sequence[Sequence[LoraUse]]) -> Iterator[None]:
        """Within it, modules are called with batches of these rows, row r using `uses[r]`.

        What a module is given has the rows in front: [rows, ...], or [rows * n, ...] row by row.
        """
        if list(uses) != self._prepared[0]:  # mostly those of the evaluation before
            self._prepared = (list(uses), _grouped(uses, self._device))
        self._uses, self.active = self._prepared
        try:
            yield
        finally:
            self._uses, self.active = (), {}

    @property
    def of_encoders(self) -> tuple[LoraUse, ...]:
        """What of the rows' LoRAs changes the encoding of a prompt just now."""
        return tuple(use for row in self._uses for use in row if use.key in self._of_encoders)


class _Hook:
    """Adds to one module's output what the active LoRAs have for it."""

    def __init__(self, adapters: Adapters, module: nn.Module) -> None:
        self.parts: dict[int, Sequence[LowRank]] = {}
        self._adapters = adapters
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        for key, groups in self._adapters.active.items():
            for part in self.parts.get(key, ()):
                for rows in groups:
                    _add(module, args[0], output, part, rows)


def _add(module: nn.Module, x: Tensor, output: Tensor, part: LowRank, rows: _Rows) -> None:
    """In place, as the output is the module's own and nobody has seen it."""
    channels = 1 if type(module) in _CONVOLUTIONS else -1
    output = output.narrow(channels, part.start, part.up.shape[0])
    scale = part.scale * rows.scale
    if rows.which is None:
        output.add_(part.of(module, x), alpha=scale)
    elif len(x) == rows.total:
        output.index_add_(0, rows.which, part.of(module, x[rows.which]), alpha=scale)
    else:
        if len(x) % rows.total:
            raise RuntimeError(f"{tuple(x.shape)} are not {rows.total} rows, as LoRA needs them")
        chosen = x.unflatten(0, (rows.total, -1))[rows.which]
        added = part.of(module, chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])
        output.unflatten(0, (rows.total, -1)).index_add_(0, rows.which, added, alpha=scale)


def _grouped(uses: Sequence[Sequence[LoraUse]], device: torch.device) -> Active:
    """For each LoRA, and each scale it is used at, the rows."""
    users: defaultdict[LoraUse, list[int]] = defaultdict(list)
    for row, of_row in enumerate(uses):
        for use in of_row:
            users[use].append(row)
    active: Active = {}
    for use, rows in users.items():
        which = None if len(rows) == len(uses) else torch.tensor(rows, device=device)
        active.setdefault(use.key, []).append(_Rows(use.scale, len(uses), which))
    return active
