"""Progress of loading a model."""

from __future__ import annotations

import msgspec


class LoadingProgress(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Part of its weights that a rank has loaded, in the form of their files."""

    rank: int = 0
    component: str
    """Component that is being loaded."""
    loaded_bytes: int
    total_bytes: int

    @property
    def fraction(self) -> float:
        return self.loaded_bytes / self.total_bytes if self.total_bytes else 1.0
