"""One tensor of a weight file, as described in the header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FileFormat = Literal["safetensors", "gguf"]
MANY_NUMBERS = 1 << 27
"""From this size on, a component on a CPU keeps 16-bit numbers in the file's pages and casts them
whenever they are used: half the memory, for a few percent of the time."""


@dataclass(frozen=True)
class TensorInfo:
    dtype: str
    """Type as named by the file's format: BF16, F8_E4M3, Q4_K."""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""
    size: int
    """Length in bytes."""

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """Tensors of one file, by name."""

    path: Path
    format: FileFormat
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)


_NO_NUMBERS = ("I", "U", "BOOL", "C", "F4", "F6_", "F8_E8M0")
"""Integers, complex numbers, and types that need separate scales."""


def is_float(dtype: str) -> bool:
    """True for types of real numbers, plain or quantised."""
    return not dtype.startswith(_NO_NUMBERS) or dtype.startswith("IQ")
