"""URLs without what must not be shown."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(?i)((?:password|passfile|sslpassword|secret|token|key)[a-z_]*=)[^&\s]*")
_USERINFO = re.compile(r"(://[^/?#@:]*):[^/?#]*@")


def redacted(url: str) -> str:
    """The URL with its password, and parameters that may be secrets, replaced."""
    return _SECRET.sub(r"\1…", _USERINFO.sub(r"\1:…@", url))
