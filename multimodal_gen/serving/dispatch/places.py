"""Tells waiting requests their places in the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from multimodal_gen.serving.dispatch.ticket import Ticket

INTERVAL_S = 1.0
TICKETS_PER_S = 2000
"""A longer queue is told less often, so that telling takes a small part of the time."""
AT_ONCE = 200
"""Tickets told before others on the event loop have a turn."""


class Places:
    """Tells places some time after a change, however many changes there were."""

    def __init__(
        self,
        order: Callable[[], Sequence[tuple[Ticket, int]]],
        tell: Callable[[Ticket, int], None],
    ) -> None:
        """`order` returns the waiting tickets, each with its place among those of its model;
        `tell` receives each."""
        self._order = order
        self._tell = tell
        self._telling: asyncio.Task[None] | None = None
        self._changed = False

    def changed(self) -> None:
        """Places are no longer as they were told."""
        self._changed = True
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._changed:
                await asyncio.sleep(INTERVAL_S)
                self._changed = False
                await self._tell_all(self._order())
        finally:
            self._telling = None

    async def _tell_all(self, tickets: Sequence[tuple[Ticket, int]]) -> None:
        for begin in range(0, len(tickets), AT_ONCE):
            for ticket, place in tickets[begin : begin + AT_ONCE]:
                self._tell(ticket, place)
            await asyncio.sleep(AT_ONCE / TICKETS_PER_S)
