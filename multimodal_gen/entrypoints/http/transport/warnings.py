"""Warnings about a request: their number, and headers for replies that have no other place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from multimodal_gen.messages.request_warning import RequestWarning

_LONGEST = 1000


class WarningInfo(BaseModel):
    """A warning about a request, as replies show it."""

    code: str
    """Such as `no_effect`, `prompt_cut` or `unknown_field`."""
    field: str | None
    text: str


def at_most(most: int, warnings: Sequence[RequestWarning]) -> list[RequestWarning]:
    """Return the warnings; if they are more than `most`, the last one counts those left out."""
    if len(warnings) <= most:
        return list(warnings)
    left_out = RequestWarning("more", None, f"and {len(warnings) - most + 1} more")
    return [*warnings[: most - 1], left_out]


def warning_headers(warnings: Iterable[RequestWarning]) -> dict[str, str]:
    """Return `x-warnings`, with the warnings in one line; nothing if there are none."""
    line = in_one_line("; ".join(map(str, warnings)))
    return {"x-warnings": line} if line else {}


def in_one_line(text: str) -> str:
    """Return text as a header allows it: printable ASCII, not too long, no space at its ends."""
    return re.sub(r"[^ -~]", "?", text)[:_LONGEST].strip()
