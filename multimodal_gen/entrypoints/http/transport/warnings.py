"""Warnings about a request: their number, and headers for replies that have no other place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LONGEST = 1000


def at_most(most: int, warnings: Sequence[str]) -> list[str]:
    """Return the warnings; if they are more than `most`, the last one counts those left out."""
    if len(warnings) <= most:
        return list(warnings)
    return [*warnings[: most - 1], f"and {len(warnings) - most + 1} more"]


def warning_headers(warnings: Iterable[str]) -> dict[str, str]:
    """Return `x-warnings`, with the warnings in one line; nothing if there are none."""
    line = in_one_line("; ".join(warnings))
    return {"x-warnings": line} if line else {}


def in_one_line(text: str) -> str:
    """Return text as a header allows it: printable ASCII, not too long, no space at its ends."""
    return re.sub(r"[^ -~]", "?", text)[:_LONGEST].strip()
