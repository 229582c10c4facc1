"""The queue in front of the engine: a line for each owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from multimodal_gen.scheduling.turns import Turns
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.ticket_heap import TicketHeap
from multimodal_gen.serving.owner import Share


class WaitingRoom:
    """Waiting tickets. Owners take turns; within a line, priority and age decide."""

    def __init__(self, share_of: Callable[[str], Share]) -> None:
        self._share_of = share_of
        self._lines: dict[str, TicketHeap] = {}
        self._suspects = TicketHeap()
        self._held: dict[Ticket, None] = {}
        self._flying: Counter[str] = Counter()
        self._turns = Turns()
        self._holds_durable = False

    def hold_durable(self) -> None:
        """From now on durable tickets stay: the next server will resume them."""
        self._holds_durable = True
        for ticket in self.tickets:
            if ticket.durable:
                self.discard(ticket)
                self.add(ticket)

    def add(self, ticket: Ticket) -> None:
        name = ticket.owner.name
        if self._holds_durable and ticket.durable:
            self._held[ticket] = None
        elif ticket.suspect:
            self._suspects.add(ticket.size, ticket)
        else:
            self._lines.setdefault(name, TicketHeap()).add(ticket.order, ticket)

    def discard(self, ticket: Ticket) -> None:
        self._held.pop(ticket, None)
        self._suspects.discard(ticket)
        name = ticket.owner.name
        if (line := self._lines.get(name)) is not None:
            line.discard(ticket)
            if not line:
                del self._lines[name]

    @property
    def suspects(self) -> int:
        return len(self._suspects)

    def suspect(self) -> Ticket | None:
        """The next ticket that is to be tried alone: the smallest, so that a long one delays no
        other."""
        first = self._suspects.first()
        return None if first is None else first[1]

    def first(self, *, newcomers_only: bool) -> Ticket | None:
        """The next ticket of the owner whose turn it is. `newcomers_only`: of owners with nothing
        in the engine."""
        firsts = [
            found[1]
            for name, line in self._lines.items()
            if self._may_go(name, newcomers_only) and (found := line.first()) is not None
        ]
        return min(firsts, key=self._order, default=None)

    def sent(self, ticket: Ticket) -> None:
        """The ticket is in the engine."""
        self._flying[ticket.owner.name] += 1
        self._turns.begin(ticket.owner.name)
        self._turns.charge(ticket.owner.name, 1)

    def came_out(self, ticket: Ticket) -> None:
        """The ticket is no longer in the engine."""
        self._flying[ticket.owner.name] -= 1

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket, wherever it is, among its owner's."""
        self._turns.enter(ticket.owner.name, self._share_of(ticket.owner.name).weight)

    def leave(self, ticket: Ticket) -> None:
        self._turns.leave(ticket.owner.name)

    @property
    def tickets(self) -> Sequence[Ticket]:
        """All waiting tickets, in about the order in which they will go."""
        turns = [
            ((index + 1) / self._share_of(name).weight, ticket.number, ticket)
            for name, line in self._lines.items()
            for index, ticket in enumerate(line)
        ]
        return [*self._suspects, *(ticket for *_, ticket in sorted(turns)), *self._held]

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) + len(self._suspects) + len(self._held)

    def __contains__(self, ticket: Ticket) -> bool:
        line = self._lines.get(ticket.owner.name, ())
        return ticket in line or ticket in self._suspects or ticket in self._held

    def _may_go(self, name: str, newcomers_only: bool) -> bool:
        flying, most = self._flying[name], self._share_of(name).max_concurrent
        return (most is None or flying < most) and not (newcomers_only and flying)

    def _order(self, ticket: Ticket) -> tuple[bool, float, float, int]:
        name = ticket.owner.name
        share = self._share_of(name)
        ahead = share.priorities and ticket.req.params.priority == "high"
        return (
            not ahead,
            self._flying[name] / share.weight,
            self._turns.account(name),
            ticket.number,
        )
