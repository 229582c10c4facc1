"""One tensor of a weight file, as the file's head describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FileFormat = Literal["safetensors", "gguf"]


@dataclass(frozen=True)
class TensorInfo:
    dtype: str
    """As the file's format calls it: BF16, F8_E4M3, Q4_K."""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""
    size: int
    """Bytes."""

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The tensors of one file, by name."""

    path: Path
    format: FileFormat
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)


_NO_NUMBERS = ("I", "U", "BOOL", "C", "F4", "F6_", "F8_E8M0")
"""Whole and complex numbers, and what means nothing without scales beside it."""


def is_float(dtype: str) -> bool:
    """Whether a file's type is of real numbers, plain or quantised."""
    return not dtype.startswith(_NO_NUMBERS) or dtype.startswith("IQ")
