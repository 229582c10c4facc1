"""Work that was decided and is not acknowledged: what runs, and one plan ahead."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from multimodal_gen.messages.plan import BatchKey, Phase, Work
from multimodal_gen.scheduling.choice import LEAD_S, Choice
from multimodal_gen.scheduling.job import Job

CLOCK_S = 1e-6
"""Shorter waits are none."""


class Flight(NamedTuple):
    work: Work
    jobs: tuple[Job, ...]
    key: BatchKey
    rows: int
    seconds: float
    """Predicted for all of it."""


class Flights:
    """First in, first out. What is decided is counted as done until it comes back otherwise."""

    def __init__(self) -> None:
        self._flights: deque[Flight] = deque()
        self._began = 0.0
        self._recalled = False

    @property
    def seconds(self) -> float:
        """Predicted for everything in flight."""
        return sum(flight.seconds for flight in self._flights)

    @property
    def closed(self) -> bool:
        """Nothing may be decided: one plan is ahead already, or what was decided on top of work
        that was cut short must come back first."""
        return self._recalled or len(self._flights) > 1

    def __contains__(self, job: Job) -> bool:
        return any(job in flight.jobs for flight in self._flights)

    @property
    def encoding(self) -> bool:
        """Those who are being encoded may join what comes next, or go first."""
        return any(flight.work.phase is Phase.ENCODE for flight in self._flights)

    def wait(self, now: float) -> float:
        """Seconds until the next plan is decided: shortly before what runs will end."""
        if not self._flights:
            return 0.0
        early = self._began + self._flights[0].seconds - LEAD_S - now
        return early if early > CLOCK_S else 0.0

    def depart(self, choice: Choice, now: float) -> Work:
        work = Work(phase=choice.phase, ids=tuple(job.id for job in choice.jobs), k=choice.k)
        seconds = choice.k * choice.unit_s
        flight = Flight(work, tuple(choice.jobs), choice.key, choice.rows, seconds)
        if not self._flights:
            self._began = now
        self._flights.append(flight)
        for job in flight.jobs:
            job.advance(choice.phase, choice.k)
        return work

    def land(self, work: Work, advanced: int, now: float, *, failed: bool) -> Flight:
        """Correct `planned` to what was done. Raises LookupError for work not in flight."""
        at = [flight.work for flight in self._flights].index(work)
        flight = self._flights[at]
        del self._flights[at]
        self._began = now
        for job in flight.jobs:
            job.done[work.phase] += advanced
            job.advance(work.phase, advanced - work.k)
        cut_short = failed or advanced < work.k
        self._recalled = bool(self._flights) and (self._recalled or cut_short)
        return flight
