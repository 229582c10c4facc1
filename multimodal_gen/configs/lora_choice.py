"""One LoRA of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA, by its name in the operator's folder, and its scale."""

    name: str
    scale: float = 1.0

    @classmethod
    def of(cls, given: object) -> LoraChoice:
        """Parse NAME, NAME:SCALE or {"name": …, "scale": …}. Raises InvalidRequest."""
        if isinstance(given, str):
            name, colon, scale = given.rpartition(":")
            scaled = bool(colon) and _is_number(scale)
            given = {"name": name, "scale": float(scale)} if scaled else {"name": given}
        if isinstance(given, Mapping) and given.keys() <= {"name", "scale"}:
            given = cls(given.get("name", ""), given.get("scale", 1.0))
        if not isinstance(given, cls) or not isinstance(given.name, str) or not given.name:
            raise InvalidRequest(
                "lora", given, 'must be NAME, NAME:SCALE or {"name": …, "scale": …}'
            )
        if isinstance(given.scale, bool) or not isinstance(given.scale, int | float):
            raise InvalidRequest("lora", given.scale, "scale must be a number")
        return given


LoraLike = LoraChoice | str | Mapping[str, Any]
"""Values that `LoraChoice.of` accepts."""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
