"""One LoRA of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multimodal_gen.errors import InvalidRequest

_TARGET = re.compile(r"@((?:transformer|unet|text_encoder)(?:_[23])?)$")
NUMBER = r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+"
"""A decimal number that is not negative."""
_SPAN = re.compile(rf"@({NUMBER})-({NUMBER})$", re.ASCII)
_FIELDS = ("name", "scale", "target", "start", "stop")
_ALLOWED = (
    "must be NAME or NAME:SCALE, which @TARGET and @START-STOP may follow, or an object of "
    "name, scale, target, start, stop"
)


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA, by its name in the operator's folder, and its scale."""

    name: str
    scale: float = 1.0
    target: str | None = None
    """Component of the model that it applies to, such as transformer_2; None: where its keys and
    its name say."""
    start: float = 0.0
    """Part of the steps that are over when it begins to apply."""
    stop: float = 1.0
    """Part of the steps that are over when it ceases to."""

    @classmethod
    def of(cls, given: object) -> LoraChoice:
        """Parse NAME[:SCALE][@TARGET][@START-STOP], or an object of these. Raises
        InvalidRequest."""
        if isinstance(given, str):
            given = _parsed(given)
        if isinstance(given, Mapping) and given.keys() <= {*_FIELDS}:
            given = cls(**{"name": "", **given})
        if not isinstance(given, cls) or not isinstance(given.name, str) or not given.name:
            raise InvalidRequest("lora", given, _ALLOWED)
        numbers_in("lora", given, ("scale", "start", "stop"))
        if not isinstance(given.target, str | None):
            raise InvalidRequest("lora", given.target, "target must be the name of a component")
        return given

    def __str__(self) -> str:
        target = f"@{self.target}" if self.target else ""
        span = "" if self.is_throughout else f"@{self.start}-{self.stop}"
        return f"{self.name}:{self.scale}{target}{span}"

    @property
    def is_throughout(self) -> bool:
        """True if it applies to all steps."""
        return (self.start, self.stop) == (0, 1)


LoraLike = LoraChoice | str | Mapping[str, Any]
"""Values that `LoraChoice.of` accepts."""


def numbers_in(field: str, choice: object, names: Sequence[str]) -> None:
    """Raise InvalidRequest if an attribute of a choice of parameter `field` is not a number."""
    for name in names:
        number = getattr(choice, name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InvalidRequest(field, number, f"{name} must be a number")


def _parsed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if match := _SPAN.search(text):
        text, span = text[: match.start()], (float(match[1]), float(match[2]))
        found |= zip(("start", "stop"), span, strict=True)
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
