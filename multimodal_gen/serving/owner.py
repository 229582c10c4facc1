"""The owner of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Holder of an API key, identified by the key's name."""

    name: str = "anonymous"
    admin: bool = False
    """May see and change other owners' jobs."""

    def may_see(self, owner_name: str) -> bool:
        return self.admin or self.name == owner_name
