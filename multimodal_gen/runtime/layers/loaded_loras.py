"""LoRAs that are loaded into a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import Lora, LoraRows, LoraUse, TermBank
from multimodal_gen.runtime.layers.lora_hooks import LoraHooks
from multimodal_gen.runtime.layers.lora_terms import LowRank

_BANKED = (Linear, Elementwise)
"""Modules that are passed the rows, and keep the terms themselves."""


class LoadedLoras:
    """Adds LoRAs to the modules of a pipeline, under the keys that requests use."""

    def __init__(self, device: torch.device) -> None:
        self.hooks = LoraHooks()
        self._device = device
        self._banks: dict[int, list[TermBank]] = {}
        self._of_encoders: set[int] = set()
        self._low_rank: set[int] = set()
        self.when_removed: list[Callable[[int], None]] = []
        """Called with the key of a LoRA before it is freed."""
        self._last: tuple[list[Sequence[LoraUse]], LoraRows | None] = ([], None)

    def add(self, key: int, lora: Lora) -> None:
        """Add a LoRA under `key`, which must be new."""
        self._banks[key] = [m.loras for m in lora.terms if isinstance(m, _BANKED)]
        for module, terms in lora.terms.items():
            if isinstance(module, _BANKED):
                module.loras.add(key, terms)
            else:
                self.hooks.add(module, key, terms)
        if lora.of_encoders:
            self._of_encoders.add(key)
        if all(isinstance(term, LowRank) for terms in lora.terms.values() for term in terms):
            self._low_rank.add(key)

    def remove(self, key: int) -> None:
        """Free a LoRA; no effect if it isn't loaded."""
        for forget in self.when_removed:
            forget(key)
        self._of_encoders.discard(key)
        self._low_rank.discard(key)
        self.hooks.remove(key)
        for bank in self._banks.pop(key, ()):
            bank.remove(key)

    def rows(self, uses: Sequence[Sequence[LoraUse]]) -> LoraRows | None:
        """LoRA argument of an evaluation whose row r uses `uses[r]`; None if no row uses any."""
        if list(uses) != self._last[0]:  # usually the same as in the previous evaluation
            made = LoraRows(uses, self._device) if any(uses) else None
            self._last = (list(uses), made)
        return self._last[1]

    def are_low_rank(self, rows: LoraRows) -> bool:
        """True if all LoRAs of these rows are low-rank products, which read fixed memory."""
        return rows.groups.keys() <= self._low_rank

    def of_encoders(self, uses: Sequence[LoraUse]) -> tuple[LoraUse, ...]:
        """LoRAs of a request that change the encoding of its prompt."""
        return tuple(use for use in uses if use.key in self._of_encoders)
