"""Names of options as the user typed them, for messages about their values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

ENVIRONMENT = "MULTIMODAL_GEN_"


class AsTyped:
    """Names the fields of a command by the flag or the environment variable that set them."""

    def __init__(self, tokens: Sequence[str], arguments: ArgumentCollection) -> None:
        self._tokens = tokens
        self._names = {
            names[0].removeprefix("--").replace("-", "_"): names
            for argument in arguments
            if (names := argument.names) and names[0].startswith("--")
        }

    def message(self, error: InvalidRequest) -> str:
        """The error's message, which names the field as it was typed: `-W/--width=70: …`."""
        field = error.field or ""
        if field not in self._names or not error.message.startswith(f"{field}="):
            return error.message
        return self.name(field) + error.message.removeprefix(field)

    def name(self, field: str) -> str:
        """The flag of a field, with the short form if that was typed; the environment variable
        that set it; or the field itself, for a value from a file."""
        long, *others = self._names[field]
        if self._typed(long):
            return long
        if typed := next(filter(self._typed, others), None):
            return typed if typed.startswith("--") else f"{typed}/{long}"
        variable = ENVIRONMENT + field.upper()
        return variable if variable in os.environ else field

    def _typed(self, name: str) -> bool:
        glued = not name.startswith("--")  # -W70
        return any(
            token.split("=")[0] == name or (glued and token.startswith(name))
            for token in self._tokens
        )
