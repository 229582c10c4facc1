"""Reads query parameters, with errors as ComfyUI sends them: `{"error": "…"}`."""

from __future__ import annotations

from collections.abc import Mapping


class InvalidQuery(Exception):
    """A query parameter has a disallowed value."""


def whole_number(given: Mapping[str, str], name: str) -> int | None:
    """Raises InvalidQuery."""
    text = given.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise InvalidQuery(f"{name} must be an integer") from None
