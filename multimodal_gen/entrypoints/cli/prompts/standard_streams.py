"""Standard input and output as files that `-` names."""

from __future__ import annotations

import sys

from multimodal_gen.errors import InvalidRequest


def read_standard_input(field: str) -> str:
    """Read all of it as text. Raises InvalidRequest."""
    if sys.stdin is None or sys.stdin.isatty():
        allowed = "standard input is a terminal: pipe text into the command"
        raise InvalidRequest(field, "-", allowed)
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(field, "-", f"can't be read as UTF-8 text: {error}") from error
