"""Texts of warnings, in every form that these have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def texts(warnings: Iterable[Any]) -> list[str]:
    """Return the texts of warnings, given as in Python or as in a reply."""
    return [each["text"] if isinstance(each, dict) else each.text for each in warnings]
