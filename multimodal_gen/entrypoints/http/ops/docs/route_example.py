"""An example of a request to a route, as a command of the shell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SERVER = "http://127.0.0.1:30000"
"""Address in examples; the page shows its own."""
_FILE = re.compile(r"\{(\w+\.\w+)\}")
_ID = re.compile(r"\$[A-Z]+")
_SHORT = 72


@dataclass(frozen=True, kw_only=True)
class RouteExample:
    """A request. Files named in it are the reader's; `$NAME` in `path` stands for an id."""

    path: str = ""
    """Path with its parameters filled in, and a query; by default that of the route."""
    body: Mapping[str, Any] | None = None
    """JSON; `{boat.png}` in a value stands for that file in base64, `$NAME` for an id."""
    form: Mapping[str, str] = field(default_factory=dict)
    """Fields of a form; `@boat.png` is a file."""
    save: str = ""
    """File that the reply is written to."""
    admin: bool = False
    """It needs the administrator key."""
    status: int = 200
    python: str = ""
    """The same in Python."""

    def curl(self, method: str, path: str, *, needs_key: bool) -> str:
        """Return the command that sends it; `path` is the route's."""
        return " \\\n  ".join(self._parts(method, path, needs_key=needs_key))

    def _parts(self, method: str, path: str, *, needs_key: bool) -> Iterator[str]:
        sends = self.body is not None or bool(self.form)
        asks = "" if method == ("POST" if sends else "GET") else f"-X {method} "
        address = f"{SERVER}{self.path or path}"
        quoted = f'"{address}"' if re.search(r"[?&$]", address) else address
        yield f"curl -s {asks}{quoted}"
        if self.admin:
            yield '-H "Authorization: Bearer $MULTIMODAL_GEN_ADMIN_KEY"'
        elif needs_key:
            yield '-H "Authorization: Bearer $MULTIMODAL_GEN_API_KEY"'
        if self.body is not None:
            yield '-H "Content-Type: application/json"'
            yield f"-d '{_text(self.body)}'"
        for name, value in self.form.items():
            yield f'-F {name}="{value}"' if " " in value else f"-F {name}={value}"
        if self.save:
            yield f"-o {self.save}"


def _text(body: Mapping[str, Any]) -> str:
    """JSON for within single quotes, on one line if it is short."""
    text = json.dumps(body, ensure_ascii=False)
    if len(text) > _SHORT:
        text = json.dumps(body, indent=2, ensure_ascii=False)
    text = text.replace("'", "'\\''")
    text = _FILE.sub(lambda found: f"'\"$(base64 -w0 {found[1]})\"'", text)
    return _ID.sub(lambda found: f"'\"{found[0]}\"'", text)
