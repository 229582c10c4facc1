"""Warnings about a request whose reply is a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 1000


def warning_headers(warnings: Iterable[str]) -> dict[str, str]:
    """Return `x-warnings`, with the warnings in one line; nothing if there are none."""
    line = in_one_line("; ".join(warnings))
    return {"x-warnings": line} if line else {}


def in_one_line(text: str) -> str:
    """Return text as a header allows it: printable ASCII, not too long."""
    return re.sub(r"[^ -~]", "?", text)[:_LONGEST]
