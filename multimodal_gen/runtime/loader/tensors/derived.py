"""Tensors that are not as a file has them: rows in another order, numbers with an offset."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.reordered import ReorderedStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored


@dataclass(frozen=True, eq=False)
class HeldTensor:
    """A tensor that is in no file."""

    values: Tensor
    dtype: str = "F32"
    """Its type, as files name it."""
    computed = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[start:stop]


@dataclass(frozen=True, eq=False)
class _Derived:
    origin: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        return self.origin.shape

    @property
    def dtype(self) -> str:
        return self.origin.dtype

    @property
    def computed(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Offset(_Derived):
    """A tensor plus a number."""

    added: float

    def rows(self, start: int, stop: int) -> Tensor:
        return self.origin.rows(start, stop).float() + self.added


@dataclass(frozen=True, eq=False)
class Stacked:
    """Tensors of one shape, side by side in a new dimension 2."""

    origins: tuple[Stored, ...]
    computed = True

    @property
    def shape(self) -> tuple[int, ...]:
        rows, channels, *rest = self.origins[0].shape
        return (rows, channels, len(self.origins), *rest)

    @property
    def dtype(self) -> str:
        return self.origins[0].dtype

    def rows(self, start: int, stop: int) -> Tensor:
        return torch.stack([each.rows(start, stop).float() for each in self.origins], 2)


@dataclass(frozen=True, eq=False)
class Reordered(_Derived):
    """A tensor whose row `i` is row `order[i]` of another."""

    order: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        chosen = self.order[start:stop]
        first = int(chosen.min())
        return self.origin.rows(first, int(chosen.max()) + 1)[chosen - first]


@dataclass(frozen=True, eq=False)
class ReorderedBlocks(Reordered):
    """The same for a matrix that can be kept."""

    origin: Quantized

    def keep(self, start: int, stop: int) -> Storage:
        """The rows in the file's pages and order, which change places when they are read."""
        chosen = self.order[start:stop]
        first = int(chosen.min())
        return ReorderedStorage(self.origin.keep(first, int(chosen.max()) + 1), chosen - first)


def reordered(origin: Stored, order: Tensor) -> Stored:
    """Rows `order` of a tensor."""
    if isinstance(origin, Quantized):
        return ReorderedBlocks(origin, order)
    return Reordered(origin, order)
