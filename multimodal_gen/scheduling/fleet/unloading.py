"""Chooses the models to unload when another is to be loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory."""

    name: str
    bytes: int
    last_used: float
    """Time at which it last had a request."""
    busy: bool = False
    """It has requests, or must stay for another reason."""


def models_to_unload(
    loaded: Iterable[LoadedModel], needed_bytes: int, budget_bytes: int
) -> list[str] | None:
    """Return the names of idle models to unload, least recently used first, so that `needed_bytes`
    more fit into the budget; an empty list if they fit already.

    None if they don't fit however many idle ones are unloaded: wait until others are idle, or
    refuse if `needed_bytes` exceeds the budget.
    """
    loaded = list(loaded)
    free = budget_bytes - sum(model.bytes for model in loaded) - needed_bytes
    unload: list[str] = []
    for model in sorted(loaded, key=lambda model: model.last_used):
        if free >= 0:
            break
        if not model.busy:
            unload.append(model.name)
            free += model.bytes
    return unload if free >= 0 else None
