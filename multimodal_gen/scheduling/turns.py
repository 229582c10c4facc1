"""Owners take turns at the engine, whatever and however much each of them asks for."""

from __future__ import annotations

from collections import Counter


class Turns:
    """Accounts of what each owner received, divided by its weight; the smallest goes next.

    Start-time fair queueing (Goyal, Vin and Cheng 1996): an owner that comes back starts from the
    account of the one whose turn it is. So it can neither save up turns nor has to pay for having
    been alone.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._present: Counter[str] = Counter()
        self._now = 0.0
        """The account, at its last turn, of the owner that had one."""

    def enter(self, owner: str, weight: float) -> None:
        """Count one more request of this owner, whose weight is now `weight`."""
        if not self._present[owner]:
            self._accounts[owner] = max(self.account(owner), self._now)
        self._present[owner] += 1
        self._weights[owner] = weight

    def leave(self, owner: str) -> None:
        """Count one request of this owner less."""
        self._present[owner] -= 1
        if not self._present[owner]:
            del self._present[owner], self._weights[owner]
        if not self._present:
            self._accounts.clear()
            self._now = 0.0

    def begin(self, owner: str) -> None:
        """It is this owner's turn."""
        self._now = max(self._now, self.account(owner))

    def charge(self, owner: str, amount: float) -> None:
        """Book what the owner received; a negative amount takes back what it did not."""
        if owner in self._weights:
            self._accounts[owner] += amount / self._weights[owner]

    def account(self, owner: str) -> float:
        """Service that the owner received, divided by its weight."""
        return self._accounts.get(owner, 0.0)

    def slowdown(self, owner: str) -> float:
        """Factor by which the owner's work takes longer than if it were alone."""
        total = sum(self._weights.values())
        return total / self._weights[owner] if owner in self._weights else 1.0
