"""URLs without what must not be shown."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(?i)((?:password|passfile|secret|token|key)[a-z_]*=)[^&]*")
_PASSWORD = re.compile(r"^([^/:@]*:(?://)?[^:]*):.*@", re.DOTALL)
"""Up to the last `@`: a password may have characters that should have been escaped."""


def redacted(url: str) -> str:
    """The URL, or what was meant to be one, with its password and parameters that may be secrets
    replaced."""
    return _SECRET.sub(r"\1…", _PASSWORD.sub(r"\1:…@", url))
