"""Who sent a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """The holder of an API key, by the key's name."""

    name: str = "anonymous"
    admin: bool = False
    """May see and change what is others'."""

    def may_see(self, owner_name: str) -> bool:
        return self.admin or self.name == owner_name
