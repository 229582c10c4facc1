"""Forms in which weights can be kept that a checkpoint has in 16 or 32 bits."""

from __future__ import annotations

from typing import Literal

Quantization = Literal["int8", "fp8", "nf4"]
