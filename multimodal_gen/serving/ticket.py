"""One request on its way through the dispatcher, and what is known of it when an engine dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from multimodal_gen.client.request_handle import RequestEvent, RequestHandle, Update
from multimodal_gen.errors import DeadlineExceeded, EngineDied
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.owner import Owner

if TYPE_CHECKING:
    import numpy as np

MAX_REPLAYS = 5
AGEING_S = 10.0
"""Waiting this long lifts a request by one priority, as in the engine."""
_LEVELS = {"low": 0, "normal": 1, "high": 2}


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A request, who waits for it, and its history with engines."""

    req: Req
    pictures: Sequence[np.ndarray[Any, Any]]
    owner: Owner
    number: int
    """In order of acceptance."""
    tell: Callable[[RequestEvent], None]
    """Hears of progress, then of the output or the error."""
    durable: bool = False
    born: float = field(default_factory=time.monotonic)

    handle: RequestHandle | None = None
    """While it is with an engine."""
    step: int = 0
    eta_s: float | None = None
    begun: bool | None = None
    """Whether the engine began it, as far as the engine told."""
    recalled: bool = False
    """It is taken back from the engine's queue, to make room for others."""
    dropped: bool = False
    """Nobody waits for it any more."""

    deaths: int = 0
    """Engines that died with it, since it got further than ever."""
    died_at: int | None = None
    """The furthest step at which an engine died while it ran."""
    suspect: bool = False
    """It may be what ends engines, and has not got past where the last one died."""

    @property
    def waits_inside(self) -> bool:
        """Whether it is with the engine, which has not begun it."""
        return self.handle is not None and self.begun is False

    def rank(self, now: float) -> float:
        """Higher goes first."""
        return _LEVELS[self.req.params.priority] + (now - self.born) // AGEING_S

    def request(self, now: float) -> Req:
        """What to send: what is left of the deadline. Raises DeadlineExceeded."""
        params = self.req.params
        if params.deadline_s is None:
            return self.req
        left = params.deadline_s - (now - self.born)
        if left <= 0:
            raise DeadlineExceeded(f"deadline_s={params.deadline_s}: passed while it waited")
        return msgspec.structs.replace(self.req, params=replace(params, deadline_s=left))

    def update(self, update: Update) -> None:
        """Take in what the engine reports of it."""
        self.step, self.eta_s = update.step, update.eta_s
        self.begun = bool(self.begun) or update.queue_position == 0
        if self.suspect and update.step > (self.died_at or 0):
            self.suspect = False

    def outlived(self, error: EngineDied) -> EngineDied | None:
        """It was with an engine that died; the reason if it must not be tried again.

        What died of it dies again at the same step; of what got further than ever it is unlikely.
        """
        place = None if self.begun is False else self.step
        if place is not None and place == self.died_at:
            return EngineDied(f"the request ended the engine twice, at step {place}: {error}")
        if place is not None and place > (-1 if self.died_at is None else self.died_at):
            self.died_at, self.deaths = place, 0
        self.deaths += 1
        self.suspect = place is not None or self.deaths > 1
        if self.deaths > MAX_REPLAYS:
            return EngineDied(f"the engine ended {self.deaths} times with the request: {error}")
        return None
