"""The queue in front of the engines: for each model, lines of each owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from multimodal_gen.scheduling.turns import Turns
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.ticket_heap import TicketHeap
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Share

_Key = tuple[str, Hashable]
"""Owner's name, and the line of a ticket."""


class WaitingRoom:
    """Waiting tickets. Owners take turns; within a line, priority and age decide.

    An owner's turns, and its requests in engines, are counted over all models.
    """

    def __init__(self, share_of: Callable[[str], Share]) -> None:
        self._share_of = share_of
        self._lines: dict[ServedModel, dict[_Key, TicketHeap]] = {}
        self._suspects: dict[ServedModel, TicketHeap] = {}
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
        if self._holds_durable and ticket.durable:
            self._held[ticket] = None
        elif ticket.suspect:
            suspects = self._suspects.setdefault(ticket.model, TicketHeap())
            suspects.add(ticket.size, ticket)
        else:
            lines = self._lines.setdefault(ticket.model, {})
            lines.setdefault(_key(ticket), TicketHeap()).add(ticket.order, ticket)

    def discard(self, ticket: Ticket) -> None:
        self._held.pop(ticket, None)
        model, key = ticket.model, _key(ticket)
        if (suspects := self._suspects.get(model)) is not None:
            suspects.discard(ticket)
            if not suspects:
                del self._suspects[model]
        lines = self._lines.get(model, {})
        if (line := lines.get(key)) is not None:
            line.discard(ticket)
            if not line:
                del lines[key]
            if not lines:
                del self._lines[model]

    @property
    def models(self) -> Sequence[ServedModel]:
        """Models that tickets wait for."""
        return [*{**self._suspects, **self._lines}]

    def suspect(self, model: ServedModel) -> Ticket | None:
        """The next ticket that is to be tried alone: the smallest, so that a long one delays no
        other."""
        suspects = self._suspects.get(model)
        first = None if suspects is None else suspects.first()
        return None if first is None else first[1]

    def firsts(self, model: ServedModel, *, newcomers_only: bool = False) -> Sequence[Ticket]:
        """The first ticket of each line, that of the owner whose turn it is first.
        `newcomers_only`: of owners with nothing in an engine."""
        firsts = [
            found[1]
            for (name, _), line in self._lines.get(model, {}).items()
            if self._may_go(name, newcomers_only) and (found := line.first()) is not None
        ]
        return sorted(firsts, key=self._order)

    def sent(self, ticket: Ticket) -> None:
        """The ticket is in an engine."""
        self._flying[ticket.owner.name] += 1
        self._turns.begin(ticket.owner.name)
        self._turns.charge(ticket.owner.name, 1)

    def came_out(self, ticket: Ticket) -> None:
        """The ticket is no longer in an engine."""
        self._flying[ticket.owner.name] -= 1

    def enter(self, ticket: Ticket) -> None:
        """Count a ticket, wherever it is, among its owner's."""
        self._turns.enter(ticket.owner.name, self._share_of(ticket.owner.name).weight)

    def leave(self, ticket: Ticket) -> None:
        self._turns.leave(ticket.owner.name)

    @property
    def tickets(self) -> Sequence[Ticket]:
        """All waiting tickets."""
        return [ticket for ticket, _ in self.places]

    @property
    def places(self) -> Sequence[tuple[Ticket, int]]:
        """All waiting tickets in about the order in which they will go, each with its place among
        those of its model."""
        lines = [enumerate(self.of_model(model)) for model in self.models]
        found = [(ticket, place) for line in lines for place, ticket in line]
        return [*found, *((ticket, len(found)) for ticket in self._held)]

    def of_model(self, model: ServedModel) -> Iterator[Ticket]:
        """Tickets that wait for this model, in about the order in which they will go."""
        yield from self._suspects.get(model, ())
        turns = [
            ((index + 1) / self._share_of(name).weight, ticket.number, ticket)
            for (name, _), line in self._lines.get(model, {}).items()
            for index, ticket in enumerate(line)
        ]
        yield from (ticket for *_, ticket in sorted(turns))

    def count(self, model: ServedModel) -> int:
        """Number of tickets that wait for this model."""
        lines = self._lines.get(model, {}).values()
        return sum(map(len, lines)) + len(self._suspects.get(model, ()))

    def __len__(self) -> int:
        return sum(map(self.count, self.models)) + len(self._held)

    def __contains__(self, ticket: Ticket | None) -> bool:
        if ticket is None:
            return False
        line = self._lines.get(ticket.model, {}).get(_key(ticket), ())
        suspects = self._suspects.get(ticket.model, ())
        return ticket in line or ticket in suspects or ticket in self._held

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


def _key(ticket: Ticket) -> _Key:
    return ticket.owner.name, ticket.line
