"""One request in the dispatcher, with its history of engine deaths."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from multimodal_gen.client.request_handle import RequestEvent, RequestHandle, Update
from multimodal_gen.configs.second_pass import pixel_steps
from multimodal_gen.errors import DeadlineExceeded, EngineDied
from multimodal_gen.messages.request import Req, Runner, Standing
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.job import AGEING_S, LEVELS
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Owner, Share

if TYPE_CHECKING:
    import numpy as np

MAX_DEATHS = 5
"""Number of engines that may die with a request that is not known to have killed any."""
CLEAR_STEPS = 3
CLEAR_S = 1.0
"""A suspect is cleared once it ran this long, and so many steps, past the step that was heard last
before the engine died: progress is told at most every 0.1 s, and plans are made ahead."""


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A request, the callback that receives its events, and its history with engines."""

    req: Req
    pictures: Sequence[np.ndarray[Any, Any]]
    model: ServedModel
    owner: Owner
    number: int
    """Order of acceptance."""
    tell: Callable[[RequestEvent], None]
    """Receives progress events, then the output or the error."""
    durable: bool = False
    born: float = field(default_factory=time.monotonic)
    order: float = field(init=False)
    """Sort key among its owner's; smaller goes first: a priority level is worth `AGEING_S` of
    waiting. Constant, as all age alike."""

    handle: RequestHandle | None = None
    """Set while it is in an engine."""
    routed: RoutedRequest | None = None
    """What the choice of an engine depends on, once that is known."""
    line: Hashable = None
    """Those of its owner that wait for the same engines."""
    eta_s: float | None = None
    begun: bool | None = None
    """Whether the engine has started it; None if unknown."""
    dropped: bool = False
    """No client waits for it any more."""

    deaths: int = 0
    """Number of engines that died with it."""
    suspect: bool = False
    """It may be what killed an engine: it is retried without neighbours."""
    cleared: bool = False
    """It was a suspect, and got well past the step at which that engine died."""
    runner: Runner | None = None
    """How the engine that began it runs its evaluations, which a replay is to do alike."""
    step: int = 0
    died_at: int = 0
    """Last step that was heard of before an engine died while running it."""
    passed_at: float | None = None
    """Time at which it got past `died_at`."""

    def __post_init__(self) -> None:
        self.order = self.born - AGEING_S * LEVELS[self.req.params.priority]

    @property
    def deadline(self) -> float | None:
        """Time by which it must have ended."""
        allowed = self.req.params.deadline_s
        return None if allowed is None else self.born + allowed

    @property
    def size(self) -> float:
        """Grows with the time it takes."""
        return pixel_steps(self.req.params)

    def request(self, share: Share, now: float) -> Req:
        """Request to send, with the remaining deadline. Raises DeadlineExceeded."""
        params = self.req.params
        standing = Standing(self.owner.name, share.weight, share.priorities)
        if self.deadline is not None:
            if self.deadline <= now:
                raise self.too_late()
            params = replace(params, deadline_s=self.deadline - now)
        return msgspec.structs.replace(
            self.req, params=params, standing=standing, runner=self.runner
        )

    def too_late(self) -> DeadlineExceeded:
        deadline_s = self.req.params.deadline_s
        return DeadlineExceeded(f"deadline_s={deadline_s}: passed while it was queued")

    def update(self, update: Update, now: float) -> None:
        """Record the engine's progress report."""
        self.step, self.eta_s = update.step, update.eta_s
        self.runner = update.runner or self.runner
        self.begun = bool(self.begun) or update.queue_position == 0
        if self.suspect and update.step > self.died_at:
            self.passed_at = now if self.passed_at is None else self.passed_at
            if update.step >= self.died_at + CLEAR_STEPS and now >= self.passed_at + CLEAR_S:
                self.suspect, self.cleared = False, True

    def outlived(self, error: EngineDied) -> EngineDied | None:
        """Record that its engine died. Returns the error if it must not be retried.

        The first time, anything that ran may be the cause. Each of those is retried alone: an
        engine that then dies again was killed by it, at whichever step was heard last.
        """
        self.deaths += 1
        if self.suspect:
            what = "killed the engine twice, the second time alone"
            return EngineDied(f"request {self.req.id} {what}: {error.message}")
        if self.deaths > MAX_DEATHS:
            what = f"the engine died {self.deaths} times while it had request {self.req.id}"
            return EngineDied(f"{what}: {error.message}")
        self.suspect = self.begun is not False or self.deaths > 1
        self.died_at = self.step
        return None

    def come_back(self) -> None:
        """Wait again, as if it had never been in an engine."""
        self.handle, self.cleared, self.passed_at = None, False, None
        self.step, self.begun, self.eta_s = 0, None, None
