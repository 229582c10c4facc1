"""Warnings about requests: what had no effect, or another than requested."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

OF_OLDER_SERVERS = "other"
"""Code of warnings that were stored as plain texts."""


class RequestWarning(msgspec.Struct, frozen=True):
    """A warning about one request. `str()` of it is its text."""

    code: str
    """Stable: prompt_cut, no_effect, unknown_field, …; docs/reference/warnings.md lists them."""
    field: str | None
    """The field of the request that it is about, as the request names it; None: no single one."""
    text: str
    """One line for people."""

    def __str__(self) -> str:
        return self.text

    def about(self, name: str) -> RequestWarning:
        """Return the warning with another name of its field, as the client knows it."""
        text = self.text
        if self.field and text.startswith(self.field):
            text = name + text.removeprefix(self.field)
        return RequestWarning(self.code, name, text)

    @classmethod
    def no_effect(cls, field: str, why: str = "") -> RequestWarning:
        """Say that a field has no effect, and why."""
        return cls("no_effect", field, f"{field} has no effect{f': {why}' if why else ''}")


def as_plain(warnings: Iterable[RequestWarning]) -> list[dict[str, Any]]:
    """Return warnings as plain data with code, field and text, each once."""
    return [msgspec.to_builtins(warning) for warning in dict.fromkeys(warnings)]


def from_plain(stored: Iterable[dict[str, Any] | str]) -> list[RequestWarning]:
    """Read what `as_plain` returned, or texts that an older server stored."""
    return [
        RequestWarning(OF_OLDER_SERVERS, None, each)
        if isinstance(each, str)
        else msgspec.convert(each, RequestWarning)
        for each in stored
    ]
