"""A heap of tickets from which any can be taken."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from multimodal_gen.serving.dispatch.ticket import Ticket

STALE = 16
"""Entries of tickets that have left are cleared once they are this many more than the others."""


class TicketHeap:
    """Tickets by a key, then by acceptance. A change takes O(log n), whichever ticket it is."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._keys: dict[Ticket, float] = {}

    def add(self, key: float, ticket: Ticket) -> None:
        self._keys[ticket] = key
        heappush(self._heap, (key, ticket.number, ticket))

    def discard(self, ticket: Ticket) -> None:
        """Take a ticket out, if it is here. Its entry stays until it is first, or among too many
        such entries."""
        self._keys.pop(ticket, None)
        if len(self._heap) > 2 * len(self._keys) + STALE:
            self._heap = [(key, ticket.number, ticket) for ticket, key in self._keys.items()]
            heapify(self._heap)

    def first(self) -> tuple[float, Ticket] | None:
        """The ticket with the smallest key, and that key."""
        while self._heap:
            key, _, ticket = self._heap[0]
            if self._keys.get(ticket) == key:
                return key, ticket
            heappop(self._heap)
        return None

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._keys

    def __iter__(self) -> Iterator[Ticket]:
        """All tickets, in order."""
        return iter(sorted(self._keys, key=lambda ticket: (self._keys[ticket], ticket.number)))
