"""Chooses which waiting request goes next, and to which engine of its model."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.waiting_room import WaitingRoom
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel

Sending = tuple[Ticket, Engine]


def next_sending(
    waiting: WaitingRoom, model: ServedModel, most: int, kept: int = 0
) -> Sending | None:
    """The next request of `model`, if an engine has room for it. An engine has at most `most`
    requests, of which the last `kept` are for owners that have nothing in any.

    What may have killed an engine is tried in one without neighbours. While there is such a
    request, one engine is emptied for it; the other engines go on, and try such requests only if
    they have nothing else to do.
    """
    open_engines = model.open_engines()
    usable = [engine for engine in open_engines if not engine.tries_suspect]
    if (suspect := waiting.suspect(model)) is not None:
        tried = len(usable) < len(open_engines)
        empty = next((engine for engine in usable if not engine.flying), None)
        if empty is not None and not (tried and waiting.first(model)):
            return suspect, empty
        if not tried and (emptied := _soonest_empty(usable)) is not None:
            usable.remove(emptied)
    return _fair_sending(waiting, model, usable, most, kept)


def _fair_sending(
    waiting: WaitingRoom, model: ServedModel, engines: Sequence[Engine], most: int, kept: int
) -> Sending | None:
    for newcomers_only, room in ((False, most - kept), (True, most)):
        with_room = [engine for engine in engines if len(engine.flying) < room]
        ticket = waiting.first(model, newcomers_only=newcomers_only) if with_room else None
        if ticket is not None:
            return ticket, best_engine(ticket, with_room)
    return None


def _soonest_empty(engines: Sequence[Engine]) -> Engine | None:
    """The engine to empty for a suspect; never one whose suspect was cleared and still runs, as
    that may take long."""
    able = [e for e in engines if not any(ticket.cleared for ticket in e.flying)]
    return min(able, key=lambda engine: len(engine.flying), default=None)


def best_engine(ticket: Ticket, engines: Sequence[Engine]) -> Engine:
    """The engine that `ticket` goes to."""
    return min(engines, key=lambda engine: len(engine.flying))
