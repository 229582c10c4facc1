"""Controls of the rows of one evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.runtime.controls.control import Added, Control, ControlCall, Told
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.layers.lora import LoraRows


@dataclass(eq=False)
class ControlUse:
    """A loaded control, as one request uses it."""

    key: int
    name: str
    scale: float
    start: float
    stop: float
    picture: str
    """Name of its picture in the request."""
    mode: str | None = None
    told: Mapping[str, Told] | None = None
    """What it made of the picture, by branch; set when the request is prepared."""

    @classmethod
    def of(cls, key: int, choice: ControlChoice, picture: str) -> ControlUse:
        """Use the control that is loaded under `key` as a request says."""
        return cls(key, choice.name, choice.scale, choice.start, choice.stop, picture, choice.mode)

    def applies(self, evaluation: int, evaluations: int) -> bool:
        """True if it applies to an evaluation of so many; like diffusers', spans end before an
        evaluation that they don't hold whole."""
        return (
            self.scale != 0
            and evaluation / evaluations >= self.start
            and (evaluation + 1) / evaluations <= self.stop
        )


Residuals = Tensor | list[Tensor] | list[Tensor | None]
RowUses = Sequence[tuple[ControlUse, str]]
"""Controls of one row, with the guidance branch that it is."""


@dataclass(frozen=True)
class _Group:
    """Rows of one control."""

    control: Control
    places: Sequence[int]
    """Their numbers among all rows."""
    rows: Tensor | None
    """The same on the device; None: all, in order."""
    scale: Tensor
    told: Told

    def call(
        self,
        tensors: Mapping[str, Any],
        static: Mapping[str, Any],
        total: int,
        lora: LoraRows | None,
    ) -> ControlCall:
        own = tensors
        if self.rows is not None:
            own = {name: self._cut(each, total) for name, each in tensors.items()}
            lora = None if lora is None else lora.cut(self.places)
        return ControlCall(own, static, self.told, self.scale, self.rows, total, lora)

    def _cut(self, given: Any, total: int) -> Any:
        """Its rows of a tensor that has all of them."""
        if self.rows is None or not isinstance(given, Tensor) or len(given) != total:
            return given
        return given.index_select(0, self.rows)


class ControlRows:
    """Controls per row of a batch: each network runs once, on its rows."""

    def __init__(
        self, uses: Sequence[RowUses], loaded: Mapping[int, Control], device: torch.device
    ) -> None:
        """Row r uses `uses[r]`."""
        self._total = len(uses)
        users: defaultdict[int, list[tuple[int, float, Told]]] = defaultdict(list)
        for row, of_row in enumerate(uses):
            for use, branch in of_row:
                if use.told and branch in use.told:
                    users[use.key].append((row, float(use.scale), use.told[branch]))
        self._groups = [
            self._group(loaded[key], members, device) for key, members in sorted(users.items())
        ]

    def _group(
        self,
        control: Control,
        members: Sequence[tuple[int, float, Told]],
        device: torch.device,
    ) -> _Group:
        rows = [row for row, _, _ in members]
        told = [each for _, _, each in members]
        scale = tensor_of([scale for _, scale, _ in members], device)
        which = None if rows == [*range(self._total)] else tensor_of(rows, device)
        return _Group(control, rows, which, scale, control.joined(told))

    @contextmanager
    def applied(
        self, tensors: Mapping[str, Any], static: Mapping[str, Any], lora: LoraRows | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the denoiser's arguments for an evaluation that runs in this context: `tensors`,
        and what the controls add."""
        with ExitStack() as stack:
            added: Added = {}
            for group in self._groups:
                call = group.call(tensors, static, self._total, lora)
                own = stack.enter_context(group.control.applied(call))
                for name, residuals in own.items():
                    added[name] = self._sum(added.get(name), residuals, group.rows)
            yield {**tensors, **added}

    def _sum(self, before: Residuals | None, own: Residuals, rows: Tensor | None) -> Residuals:
        """Add to all rows; those of other controls stay as they are."""
        if isinstance(own, list):
            befores = before if isinstance(before, list) else [None] * len(own)
            made: dict[tuple[int, int], Tensor | None] = {}  # each sum once
            sums: list[Tensor | None] = []
            for a, b in zip(befores, own, strict=True):
                pair = id(a), id(b)
                if pair not in made:
                    made[pair] = a if b is None else self._one(a, b, rows)
                sums.append(made[pair])
            return sums
        return self._one(before if isinstance(before, Tensor) else None, own, rows)

    def _one(self, before: Tensor | None, own: Tensor, rows: Tensor | None) -> Tensor:
        if rows is None:
            return own if before is None else before + own
        if before is None:
            before = own.new_zeros(self._total, *own.shape[1:])
        return before.index_add(0, rows, own)
