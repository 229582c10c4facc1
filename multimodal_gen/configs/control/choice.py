"""One control of a request."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from multimodal_gen.configs.lora.choice import NUMBER, numbers_in
from multimodal_gen.errors import InvalidRequest

_TEXT = re.compile(
    r"(?P<name>[^=/]+)(?:/(?P<mode>[^=]+))?=(?P<image>.+?)"
    rf"(?::(?P<scale>{NUMBER}))?"
    rf"(?:@(?P<start>{NUMBER})-(?P<stop>{NUMBER}))?",
    re.ASCII | re.DOTALL,
)
_NUMBERS = ("scale", "start", "stop")
_FIELDS = ("name", "image", "mode", *_NUMBERS)
_ALLOWED = (
    "must be NAME=IMAGE or NAME/MODE=IMAGE, which :SCALE and @START-STOP may follow, or an object "
    "of name, image, scale, start, stop, mode"
)


@dataclass(frozen=True)
class ControlChoice:
    """A control (ControlNet, T2I-Adapter, IP-Adapter), by its name in the operator's folder, and
    the picture that steers it."""

    name: str
    image: str | None = None
    """Path of the picture. The client opens it: the engine gets its pixels as `control_1`,
    `control_2`, … in the order of the controls."""
    scale: float = 1.0
    start: float = 0.0
    """Part of the steps that are over when it begins to apply."""
    stop: float = 1.0
    """Part of the steps that are over when it ceases to."""
    mode: str | None = None
    """Kind of picture, for a control that takes several kinds: canny, depth, …"""

    @classmethod
    def of(cls, given: object) -> ControlChoice:
        """Parse NAME[/MODE]=IMAGE[:SCALE][@START-STOP], or an object of these. Raises
        InvalidRequest."""
        if isinstance(given, str) and (match := _TEXT.fullmatch(given)):
            found = {name: text for name, text in match.groupdict().items() if text is not None}
            given = {**found, **{name: float(found[name]) for name in _NUMBERS if name in found}}
        if isinstance(given, Mapping) and given.keys() <= {*_FIELDS}:
            given = cls(**{"name": "", **given})
        if not isinstance(given, cls) or not isinstance(given.name, str) or not given.name:
            raise InvalidRequest("control", given, _ALLOWED)
        numbers_in("control", given, _NUMBERS)
        if isinstance(given.image, os.PathLike):
            given = replace(given, image=os.fspath(given.image))
        for name in ("image", "mode"):
            if not isinstance(text := getattr(given, name), str | None):
                raise InvalidRequest("control", text, f"{name} must be text")
        return given

    def __str__(self) -> str:
        span = "" if (self.start, self.stop) == (0, 1) else f"@{self.start}-{self.stop}"
        mode = f"/{self.mode}" if self.mode else ""
        return f"{self.name}{mode}={self.image or ''}:{self.scale}{span}"


ControlLike = ControlChoice | str | Mapping[str, Any]
"""Values that `ControlChoice.of` accepts."""
