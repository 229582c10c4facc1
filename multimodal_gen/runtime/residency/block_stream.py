"""Streams the blocks of a module into the device while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.residency.bundle import Bundle, bundle_of
from multimodal_gen.runtime.residency.transfers import Arrival, Transfers


class StreamedUnit:
    """A module that is called as a whole, and its weights."""

    def __init__(self, module: nn.Module, without: Sequence[nn.Module] = ()) -> None:
        """`without`: submodules that are units of their own."""
        self.module = module
        self.bundle: Bundle = bundle_of([module], without)
        self.slot: int | None = None
        """Number of the slot that it is in, or on its way to."""
        self.arrival = Arrival()


class BlockStream:
    """Brings each unit into one of a few slots shortly before it is called.

    While one runs, the next ones in order are copied. The order is that of the last evaluation, at
    first that of `units`; a unit that is called out of turn is copied then. A slot is used again
    only after the work that used it.
    """

    def __init__(
        self,
        units: Sequence[StreamedUnit],
        slots: int,
        transfers: Transfers,
        device: torch.device,
    ) -> None:
        self.units = units
        self._transfers = transfers
        self._device = device
        self.slots = slots
        self.slot_size = max(unit.bundle.size for unit in units)
        self._memory: list[Tensor] = []
        self._free: list[int] = []
        self._order = [*units]
        self._seen: list[StreamedUnit] = []
        self._upcoming: list[StreamedUnit] = []
        self._inside: StreamedUnit | None = None
        for unit in units:
            unit.module.register_forward_pre_hook(partial(self._enter, unit))
            unit.module.register_forward_hook(partial(self._leave, unit))

    @property
    def size(self) -> int:
        """Bytes on the device while it is open."""
        return self.slots * self.slot_size

    def open(self) -> None:
        """Reserve the slots."""
        if not self._memory:
            self._memory = [
                torch.empty(self.slot_size, dtype=torch.uint8, device=self._device)
                for _ in range(self.slots)
            ]
            self._free = [*range(self.slots)]

    def close(self) -> None:
        """Free the slots."""
        self._reset()
        self._memory = []
        self._free = []

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Context of one evaluation, whose first units are copied ahead. What runs outside, such as
        a control that uses some of the units, does not change the order."""
        self._seen = []
        self._begin()
        try:
            yield
        finally:
            self._order, self._seen = self._seen or self._order, []
            self._reset()

    # -- hooks

    def _enter(self, unit: StreamedUnit, *_: Any) -> None:
        if self._inside is not None:  # failed, as it was not left
            self._release(self._inside)
        if unit in self._seen:
            self._begin()
        self._seen.append(unit)
        if unit.slot is None:
            self._fetch(unit)
        unit.arrival.wait()
        self._inside = unit
        if unit in self._upcoming:
            self._upcoming = self._upcoming[self._upcoming.index(unit) + 1 :]
        self._prefetch()

    def _leave(self, unit: StreamedUnit, *_: Any) -> None:
        self._release(unit)
        self._inside = None
        self._prefetch()

    # -- slots

    def _begin(self) -> None:
        if self._seen:
            self._order = self._seen
        self._seen = []
        self._upcoming = [*self._order]
        self._prefetch()

    def _prefetch(self) -> None:
        """Copy upcoming units while there are free slots."""
        for unit in self._upcoming[: self.slots]:
            if unit.slot is None:
                if not self._free:
                    return
                self._fetch(unit)

    def _fetch(self, unit: StreamedUnit) -> None:
        if not self._free:  # the order has changed
            held = [each for each in self.units if each.slot is not None]
            self._release(max(held, key=self.units.index))
        unit.slot = self._free.pop(0)
        unit.arrival = self._transfers.start(unit.bundle.place(self._memory[unit.slot]))

    def _release(self, unit: StreamedUnit) -> None:
        if unit.slot is None:
            return
        unit.arrival.wait()  # before anything else is copied there
        unit.bundle.restore()
        self._free.append(unit.slot)
        unit.slot = None

    def _reset(self) -> None:
        for unit in self.units:
            self._release(unit)
        self._inside = None
        self._upcoming = []
