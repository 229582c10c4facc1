"""One request in the dispatcher, with its history of engine deaths."""

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
"""Waiting this long raises a request by one priority level, as in the engine."""
_LEVELS = {"low": 0, "normal": 1, "high": 2}


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A request, the callback that receives its events, and its history with engines."""

    req: Req
    pictures: Sequence[np.ndarray[Any, Any]]
    owner: Owner
    number: int
    """Order of acceptance."""
    tell: Callable[[RequestEvent], None]
    """Receives progress events, then the output or the error."""
    durable: bool = False
    born: float = field(default_factory=time.monotonic)

    handle: RequestHandle | None = None
    """Set while it is in an engine."""
    step: int = 0
    eta_s: float | None = None
    begun: bool | None = None
    """Whether the engine has started it; None if unknown."""
    recalled: bool = False
    """It is being taken back from the engine's queue, to make room for other owners."""
    dropped: bool = False
    """No client waits for it any more."""

    deaths: int = 0
    """Number of engines that died with it since it last got further than before."""
    died_at: int | None = None
    """Furthest step at which an engine died while running it."""
    suspect: bool = False
    """It may be what kills engines: it has not got past the step at which the last one died."""

    @property
    def waits_inside(self) -> bool:
        """True if it is in the engine, which has not started it."""
        return self.handle is not None and self.begun is False

    def rank(self, now: float) -> float:
        """Sort key; higher goes first."""
        return _LEVELS[self.req.params.priority] + (now - self.born) // AGEING_S

    def request(self, now: float) -> Req:
        """Request to send, with the remaining deadline. Raises DeadlineExceeded."""
        params = self.req.params
        if params.deadline_s is None:
            return self.req
        left = params.deadline_s - (now - self.born)
        if left <= 0:
            raise DeadlineExceeded(f"deadline_s={params.deadline_s}: passed while it was queued")
        return msgspec.structs.replace(self.req, params=replace(params, deadline_s=left))

    def update(self, update: Update) -> None:
        """Record the engine's progress report."""
        self.step, self.eta_s = update.step, update.eta_s
        self.begun = bool(self.begun) or update.queue_position == 0
        if self.suspect and update.step > (self.died_at or 0):
            self.suspect = False

    def outlived(self, error: EngineDied) -> EngineDied | None:
        """Record that its engine died. Returns the error if it must not be retried.

        A request that kills engines does so at the same step each time; one that got further than
        before is probably not the cause.
        """
        place = None if self.begun is False else self.step
        if place is not None and place == self.died_at:
            return EngineDied(f"the request killed the engine twice, at step {place}: {error}")
        if place is not None and place > (-1 if self.died_at is None else self.died_at):
            self.died_at, self.deaths = place, 0
        self.deaths += 1
        self.suspect = place is not None or self.deaths > 1
        if self.deaths > MAX_REPLAYS:
            return EngineDied(
                f"the engine died {self.deaths} times while it had the request: {error}"
            )
        return None
