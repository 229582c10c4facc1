"""The owner of a request, and what it is entitled to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Holder of an API key, identified by the key's name."""

    name: str = "anonymous"
    admin: bool = False
    """May see and change other owners' jobs."""

    @property
    def seen(self) -> str | None:
        """Name of the owner whose jobs it sees; None if all owners' are."""
        return None if self.admin else self.name

    def may_see(self, owner_name: str) -> bool:
        return self.admin or self.name == owner_name


def digest_of(owner_name: str) -> str:
    """Return 16 hex digits in place of an owner's name, where that must not be read."""
    return hashlib.sha256(owner_name.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Share:
    """Share of the server that the operator grants an owner, beside others."""

    max_concurrent: int | None = None
    """Maximum number of its requests in the engine at a time; None means no limit."""
    weight: float = 1.0
    """Its share of the engine and of the queue's places, relative to others."""
    priorities: bool = False
    """Its requests of high priority go before those of other owners."""
