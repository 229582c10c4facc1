"""One LoRA of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimodal_gen.errors import InvalidRequest

_TARGET = re.compile(r"@((?:transformer|unet|text_encoder)(?:_[23])?)$")
_FIELDS = {"name", "scale", "target"}
_ALLOWED = 'must be NAME, NAME:SCALE, NAME:SCALE@TARGET or {"name": …, "scale": …, "target": …}'


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA, by its name in the operator's folder, and its scale."""

    name: str
    scale: float = 1.0
    target: str | None = None
    """Component of the model that it applies to, such as transformer_2; None: where its keys and
    its name say."""

    @classmethod
    def of(cls, given: object) -> LoraChoice:
        """Parse NAME, NAME:SCALE, NAME:SCALE@TARGET or {"name": …, "scale": …, "target": …}.
        Raises InvalidRequest."""
        if isinstance(given, str):
            given = _parsed(given)
        if isinstance(given, Mapping) and given.keys() <= _FIELDS:
            given = cls(given.get("name", ""), given.get("scale", 1.0), given.get("target"))
        if not isinstance(given, cls) or not isinstance(given.name, str) or not given.name:
            raise InvalidRequest("lora", given, _ALLOWED)
        if isinstance(given.scale, bool) or not isinstance(given.scale, int | float):
            raise InvalidRequest("lora", given.scale, "scale must be a number")
        if not isinstance(given.target, str | None):
            raise InvalidRequest("lora", given.target, "target must be the name of a component")
        return given

    def __str__(self) -> str:
        return f"{self.name}:{self.scale}" + (f"@{self.target}" if self.target else "")


LoraLike = LoraChoice | str | Mapping[str, Any]
"""Values that `LoraChoice.of` accepts."""


def _parsed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if match := _TARGET.search(text):
        text, found["target"] = text[: match.start()], match[1]
    name, colon, scale = text.rpartition(":")
    if colon and _is_number(scale):
        return {"name": name, "scale": float(scale), **found}
    return {"name": text, **found}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
