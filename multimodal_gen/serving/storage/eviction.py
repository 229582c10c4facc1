"""Order in which results go when an owner's space is used up."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

NEARLY_FULL = 0.9
"""Share of the quota from which clients are told which results go next."""
MOST_TOLD = 200
_UNLISTED_S = 86400.0
_OF_JOB = re.compile(r"([0-9a-f]+-\d+)\.")


def output_of(name: str) -> str:
    """Return JOB-INDEX of a job's file, and the name itself of any other."""
    found = _OF_JOB.match(name)
    return name if found is None else found[1]


def life_of(name: str, ttl_s: float | None) -> float | None:
    """Return the seconds that a file is kept; None if until it is deleted or space is needed."""
    return unlisted_life(ttl_s) if output_of(name) == name else ttl_s


def unlisted_life(ttl_s: float | None) -> float:
    """Return the seconds that files of no job are kept: no list shows them, so that nobody could
    delete them."""
    return _UNLISTED_S if ttl_s is None else ttl_s


def in_order(names: Iterable[str], starred: Collection[str]) -> list[list[str]]:
    """Group an owner's files, oldest first, by output, in the order in which they go: starred ones
    last. The newest output is left out, as it stays whatever its size."""
    outputs: dict[str, list[str]] = {}
    for name in names:
        outputs.setdefault(output_of(name), []).append(name)
    if outputs:
        outputs.popitem()
    return [outputs[key] for key in sorted(outputs, key=lambda key: key in starred)]


@dataclass(frozen=True)
class StorageUse:
    """An owner's results, and the space for them."""

    used: int
    quota: int
    """Bytes."""
    next: tuple[str, ...] = ()
    """Outputs that go next, each JOB-INDEX, in order; empty while there is space."""

    @property
    def nearly_full(self) -> bool:
        return self.used >= NEARLY_FULL * self.quota

    @classmethod
    def of(cls, sizes: dict[str, int], quota: int, starred: Collection[str]) -> StorageUse:
        """`sizes`: bytes by name, oldest first. Those go next that a tenth of the quota in new
        results would take the place of."""
        use = cls(sum(sizes.values()), quota)
        if not use.nearly_full:
            return use
        excess, told = use.used - NEARLY_FULL * quota, []
        for names in in_order(sizes, starred):
            if output_of(names[0]) != names[0]:
                told.append(output_of(names[0]))
            excess -= sum(sizes[name] for name in names)
            if excess <= 0 or len(told) == MOST_TOLD:
                break
        return cls(use.used, quota, tuple(told))
