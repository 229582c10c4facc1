"""Inputs of an evaluation as a graph needs them: few numbers of rows, at fixed addresses."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.models.denoiser import Static, Tensors

ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of rows that batches are padded to: at most a third of them are padding."""
_LORA = "scales of LoRAs"


class _Leaf(NamedTuple):
    """A tensor among the inputs: of the argument `name`, at `place` if that is a list; or the
    scales of LoRA number `place`."""

    name: str
    place: int | None
    tensor: Tensor
    has_rows: bool
    """True if it has a value per row, false if all rows share it."""


class EvaluationInputs:
    """Arguments of one evaluation of R rows.

    A tensor has a value per row if its first dimension is R; all rows share others, and those in
    lists.
    """

    def __init__(self, tensors: Tensors, static: Static | None, lora: LoraRows | None) -> None:
        timestep = tensors["timestep"]
        assert isinstance(timestep, Tensor)
        self.rows = len(timestep)
        self._tensors = tensors
        self._static = static
        self.lora = lora
        self._leaves = [*self._found()]
        self._padded = next((count for count in ROWS if count >= self.rows), self.rows)

    @property
    def arguments(self) -> tuple[Tensors, Static | None, LoraRows | None]:
        """Arguments of the denoiser."""
        return self._tensors, self._static, self.lora

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf.tensor for leaf in self._leaves]

    @property
    def size(self) -> int:
        """Bytes of a copy."""
        return sum(
            math.prod(self._shape(leaf)) * leaf.tensor.element_size() for leaf in self._leaves
        )

    def signature(self) -> Hashable:
        """A key that is equal for evaluations that one graph can run."""
        tensors = tuple(
            (leaf.name, leaf.place, self._shape(leaf), leaf.tensor.dtype) for leaf in self._leaves
        )
        return tensors, _frozen(self._static or {})

    def copied(self) -> EvaluationInputs:
        """The same in memory of its own, with the last row again up to a number of `ROWS`."""
        tensors: dict[str, Any] = dict(self._tensors)
        scales: dict[int, Tensor] = {}
        for leaf in self._leaves:
            memory = leaf.tensor.new_empty(self._shape(leaf))
            if leaf.name == _LORA:
                assert leaf.place is not None
                scales[leaf.place] = memory
            elif leaf.place is None:
                tensors[leaf.name] = memory
            else:
                tensors[leaf.name] = [*tensors[leaf.name]]
                tensors[leaf.name][leaf.place] = memory
        lora = None if self.lora is None else LoraRows.with_scales(scales, self._padded)
        copy = EvaluationInputs(tensors, self._static, lora)
        copy.fill(self)
        return copy

    def fill(self, given: EvaluationInputs) -> None:
        """Copy the tensors of `given`, of which these are a copy or could be one."""
        copies = [*zip(self._leaves, given._leaves, strict=True)]
        for dtype in dict.fromkeys(leaf.tensor.dtype for leaf in self._leaves):  # a launch each
            own, new = [], []
            for leaf, source in copies:
                if leaf.tensor.dtype != dtype:
                    continue
                own.append(leaf.tensor)
                new.append(source.tensor)
                if leaf.has_rows and self.rows > given.rows:
                    own[-1], end = own[-1].tensor_split([given.rows])
                    own.append(end)
                    new.append(new[-1][-1:].expand_as(end))
            torch._foreach_copy_(own, new)

    def _found(self) -> Iterator[_Leaf]:
        for name in sorted(self._tensors):
            value = self._tensors[name]
            if isinstance(value, Tensor):
                yield _Leaf(name, None, value, value.dim() > 0 and len(value) == self.rows)
            elif value is not None:
                yield from (_Leaf(name, at, each, False) for at, each in enumerate(value))
        for key, each in ({} if self.lora is None else self.lora.scales).items():
            yield _Leaf(_LORA, key, each, True)

    def _shape(self, leaf: _Leaf) -> tuple[int, ...]:
        shape = tuple(leaf.tensor.shape)
        return (self._padded, *shape[1:]) if leaf.has_rows else shape


def _frozen(value: Any) -> Hashable:
    """A plain value as a key."""
    if isinstance(value, Mapping):
        return tuple((name, _frozen(value[name])) for name in sorted(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(each) for each in value)
    key: Hashable = value
    return key
