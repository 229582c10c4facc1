"""Keeps the deadlines of requests that wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.ticket_heap import TicketHeap


class DeadlineTimer:
    """Calls `expire` for every watched ticket whose deadline has passed: one timer for all."""

    def __init__(self, expire: Callable[[Ticket], None]) -> None:
        self._expire = expire
        self._tickets = TicketHeap()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def watch(self, ticket: Ticket) -> None:
        if ticket.deadline is not None:
            self._tickets.add(ticket.deadline, ticket)
            self._set()

    def discard(self, ticket: Ticket) -> None:
        self._tickets.discard(ticket)

    def _set(self) -> None:
        """Wake up at the earliest deadline, or before."""
        if (first := self._tickets.first()) is None or self._due <= first[0]:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = first[0]
        delay = max(0.0, self._due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._due = math.inf
        while (first := self._tickets.first()) is not None and first[0] <= time.monotonic():
            self._tickets.discard(first[1])
            self._expire(first[1])
        self._set()
