"""A layer with a quantised weight in an open file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.tensors.stored import Stored

PLAIN = ("F64", "F32", "F16", "BF16")
"""Types of plain floating-point numbers."""


@dataclass(frozen=True)
class StoredLayer:
    """Tensors and settings of one quantised weight."""

    name: str
    """Name of the layer in the file."""
    form: str
    shape: tuple[int, ...]
    """Shape of the weight, [out, in] for a linear layer."""
    tensors: Mapping[str, Stored]
    """Its tensors by what they are: weight, weight_scale …"""
    settings: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of those tensors in the file that are not called NAME.PART."""

    def error(self, part: str, reason: str) -> InvalidCheckpoint:
        """Error about one of its tensors, or a setting."""
        name = self.names.get(part, f"{self.name}.{part}")
        return InvalidCheckpoint(f"{name}: {reason} ({self.form})")

    def tensor(self, *parts: str) -> Stored | None:
        """The first of these tensors that exists."""
        return next((self.tensors[part] for part in parts if part in self.tensors), None)

    def needed(self, *parts: str) -> Stored:
        """The first of these tensors that exists. Raises InvalidCheckpoint if there is none."""
        found = self.tensor(*parts)
        if found is None:
            raise self.error(parts[0], "is missing")
        return found

    def factor(self, *parts: str) -> Tensor | None:
        """A positive number, float32 []; None if there is none. Raises InvalidCheckpoint."""
        stored = self.tensor(*parts)
        if stored is None:
            return None
        part = self.part_of(stored)
        values = whole(stored)
        if values.numel() != 1:
            raise self.error(part, f"{list(stored.shape)} must be one number")
        return self.positive(values.reshape(()), part)

    def part_of(self, stored: Stored) -> str:
        return next(part for part, each in self.tensors.items() if each is stored)

    def positive(self, scales: Tensor, part: str) -> Tensor:
        """The scales in float32. Raises InvalidCheckpoint unless they are positive and finite."""
        if self.tensors[part].dtype not in PLAIN:
            raise self.error(part, f"{self.tensors[part].dtype} must be floating point")
        scales = scales.float()
        wrong = scales[~((scales > 0) & scales.isfinite())]
        if wrong.numel():
            raise self.error(part, f"a scale of {wrong[0].item()} must be positive and finite")
        return scales


@dataclass(frozen=True, eq=False)
class KeptNumbers(ABC):
    """A quantised weight that layers keep as it is stored."""

    layer: StoredLayer
    numbers: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layer.shape

    @property
    def dtype(self) -> str:
        return self.layer.form

    @property
    def computed(self) -> bool:
        return True

    def rows(self, start: int, stop: int) -> Tensor:
        return self.keep(start, stop).dequantized(torch.float32).reshape(-1, *self.shape[1:])

    @abstractmethod
    def keep(self, start: int, stop: int) -> Storage:
        """A range of its rows in the form of the file."""


def whole(stored: Stored) -> Tensor:
    """All numbers of a tensor, in its shape."""
    rows = stored.rows(0, stored.shape[0] if stored.shape else 1)
    return rows.reshape(stored.shape)
