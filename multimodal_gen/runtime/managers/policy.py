"""What runs next: a pure function of the queue, the cost model and the time that is passed in.

Order: priority (one level up when a deadline comes near), then the least predicted remaining time
times total time, then arrival. The product (Bansal & Pruhs 2010 call the like of it SPTPP) equals
least remaining time for what has not begun, and keeps a long job that is half done from going
before a short one. Ageing: who has waited too long, the longest first, gets a fixed share of the
device whatever the order says; so nothing starves, and nothing is held up by more than that share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from multimodal_gen.errors import DeadlineExceeded, QueueFull
from multimodal_gen.messages.plan import Phase, Prepared, Work
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.managers.backlog import Backlog
from multimodal_gen.runtime.managers.batching import Batch
from multimodal_gen.runtime.managers.cost_model import MAX_KEYS, CostModel
from multimodal_gen.runtime.managers.job import ABOVE_ALL, Geometry, Job, Order, geometry_of
from multimodal_gen.runtime.managers.waiting import Index, WaitingQueue

REACTION_S = 0.05
"""A newcomer, or a cancelled request, is heeded within this or within one unit of work."""
LEAD_S = 0.005
"""So long before long work ends, the next may be decided."""
AGEING_S = 10.0
"""A high-priority job has waited too long after this, normal after twice, low after three times."""
AGED_SHARE = 1 / 6
"""Of the device, for those who have waited too long."""


class Progress(NamedTuple):
    """How far a request is, in the user's steps."""

    step: int
    total: int
    queue_position: int
    eta_s: float


class _Flight(NamedTuple):
    """Work that was decided and is not acknowledged."""

    work: Work
    jobs: tuple[Job, ...]
    key: str
    rows: int
    seconds: float


class _Choice(NamedTuple):
    phase: Phase
    jobs: list[Job]
    key: str
    rows: int
    unit_s: float
    """Of one unit of the whole group."""


class Policy:
    """The queue, and the decisions over it. At most one plan is decided ahead of the device."""

    def __init__(self, cost: CostModel, *, max_batch: int, max_queue: int) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._jobs: dict[str, Job] = {}
        self._active: dict[str, Job] = {}
        self._waiting = WaitingQueue()
        self._deadlines = Index()
        self._urgent_at: dict[str, float] = {}
        self._becoming_urgent = Index()
        self._flights: deque[_Flight] = deque()
        self._flight_began = 0.0
        self._settling = False
        self._aged_turn = 0.0
        self._arrivals = 0
        self._known: dict[Geometry, Prepared] = {}
        self._backlog = Backlog(cost, max_batch)
        self.wake_at: float | None = None
        """When `next` that gave None should be asked again, if nothing happens before."""

    @property
    def running(self) -> int:
        return len(self._active)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # -- who is in

    def submit(self, req: Req, now: float) -> bool:
        """Take the request; False when its id is already alive, which is the same request.

        Raises QueueFull, and DeadlineExceeded when it can't be done in its time even if it is
        preferred as much as it ever will be.
        """
        if req.id in self._jobs:
            return False
        if len(self._jobs) >= self._max_queue:
            message = f"{len(self._jobs)} requests are in the queue, which takes {self._max_queue}"
            raise QueueFull(message, self._retry_after())
        self._arrivals += 1
        job = Job(req, self._arrivals, now, self._known.get(geometry_of(req)))
        if job.deadline is not None:
            self._check_deadline(job, now)
            self._deadlines.add((job.deadline,), job)
            self._urgent_at[job.id] = job.deadline - 2 * job.total(self._cost)
            self._becoming_urgent.add((self._urgent_at[job.id],), job)
        self._jobs[job.id] = job
        self._waiting.add(job, _aged_at(job))
        return True

    def cancel(self, id: str) -> bool:
        """Whether the request was alive. What is in flight for it is no longer credited."""
        alive = id in self._jobs
        self.remove(id)
        return alive

    def remove(self, id: str) -> None:
        """The request has ended; without effect when it has left already."""
        job = self._jobs.pop(id, None)
        if job is None:
            return
        if self._active.pop(id, None) is None:
            self._waiting.discard(job, _aged_at(job))
        if job.deadline is not None:
            self._deadlines.discard((job.deadline,), job)
            self._becoming_urgent.discard((self._urgent_at.pop(id),), job)

    def expired(self, now: float) -> list[str]:
        """Ids whose deadline has passed. They have left."""
        late = []
        while (found := self._deadlines.first()) and found[0][0] <= now:
            late.append(found[1].id)
            self.remove(found[1].id)
        return late

    # -- what runs

    def next(self, now: float) -> Work | None:
        """What to run next, counting on everything decided before to run as decided.

        None when nothing can be decided: no work, a phase that must be acknowledged first, one plan
        ahead already, or too long before the end of what runs (then `wake_at` says when to ask).
        """
        self.wake_at = None
        if self._settling or len(self._flights) > 1:
            return None
        self._heed_deadlines(now)
        head, aged = self._head(now)
        if head is None:
            return None
        choice = self._choose(head, now)
        if self._flights and not self._may_decide_ahead(choice, now):
            return None
        return self._commit(choice, aged, now)

    def completed(
        self,
        work: Work,
        *,
        advanced: int,
        seconds: float,
        prepared: dict[str, Prepared],
        now: float,
    ) -> list[str]:
        """Work ended after `advanced` of its units (fewer than k: it was cut short or skipped).

        Returns the ids whose last chunk is decoded. They have left.
        """
        flight = self._land(work, advanced, now)
        for job in flight.jobs:
            job.ran += seconds
            if advanced and len(flight.jobs) == 1:
                job.alone = False
            if job.id in prepared and self._jobs.get(job.id) is job:
                self._prepare(job, prepared[job.id])
        if advanced:
            self._cost.observe(work.phase, flight.key, flight.rows, seconds / advanced)
        finished = [job.id for job in self._alive(flight.jobs) if job.finished]
        for id in finished:
            self.remove(id)
        return finished

    def failed(self, work: Work, *, advanced: int, out_of_memory: bool, now: float) -> list[str]:
        """The group's work raised after `advanced` units.

        A group that ran out of memory is tried again smaller, one that failed otherwise each by
        itself. Returns the ids that failed by themselves: it is their error. They have left.
        """
        flight = self._land(work, advanced, now)
        self._settling = bool(self._flights)
        if out_of_memory and work.phase is Phase.DENOISE:
            self._cost.out_of_memory(flight.key, flight.rows)
        if len(flight.jobs) == 1:
            ended = [job.id for job in self._alive(flight.jobs)]
            for id in ended:
                self.remove(id)
            return ended
        for job in flight.jobs:
            job.alone = not (out_of_memory and work.phase is Phase.DENOISE)
        return []

    # -- what to tell

    def progress(self, id: str, now: float) -> Progress:
        """Where a live request is. Raises KeyError for one that is not alive."""
        job = self._jobs[id]
        ahead = self._backlog.ahead_of(job, self._jobs.values(), now)
        own = self._backlog.seconds_left(job)
        if id in self._active:
            sharing = any(job in flight.jobs for flight in self._flights)
            wait = 0.0 if sharing else ahead.seconds
            return Progress(job.steps_done(), job.steps, 0, wait + own)
        return Progress(0, job.steps, ahead.jobs, ahead.seconds + own)

    # -- deciding

    def _head(self, now: float) -> tuple[Job | None, bool]:
        """Whose turn it is, and whether for its age."""
        if now >= self._aged_turn:
            oldest = self._oldest(now)
            if oldest is not None:
                return oldest, True
        ready = [job for job in self._active.values() if job.next_phase() is not None]
        first = self._waiting.first()
        if first is not None:
            ready.append(first)
        return min(ready, key=self._order, default=None), False

    def _oldest(self, now: float) -> Job | None:
        found = self._waiting.oldest()
        aged = [found] if found and found[0] <= now else []
        for job in self._active.values():
            at = _aged_at(job)
            if at + job.ran <= now and job.next_phase() is not None:
                aged.append((at, job))
        return min(aged, key=lambda entry: (entry[0], entry[1].number))[1] if aged else None

    def _order(self, job: Job) -> Order:
        return job.order(self._cost)

    def _choose(self, head: Job, now: float) -> _Choice:
        phase = head.next_phase()
        if phase is Phase.DECODE:
            group = [] if head.alone else self._others(head, Phase.DECODE)
            return self._one_after_another(phase, [head, *group])
        batch = Batch(head, self._cost, max_batch=self._max_batch, now=now)
        if not head.alone:
            newcomers = self._fill(batch, head)
            if phase is Phase.DENOISE and newcomers:
                return self._one_after_another(Phase.ENCODE, newcomers)
            if phase is Phase.ENCODE:
                return self._one_after_another(phase, [head, *newcomers])
        elif phase is Phase.ENCODE:
            return self._one_after_another(phase, [head])
        seconds = self._cost.seconds(Phase.DENOISE, batch.key, batch.rows)
        return _Choice(Phase.DENOISE, batch.jobs, batch.key, batch.rows, seconds)

    def _fill(self, batch: Batch, head: Job) -> list[Job]:
        """Add those who can share the head's next evaluation; returns those who wait among them."""
        for job in self._others(head, Phase.DENOISE):
            if job.key == batch.key:
                batch.add(job)
        if batch.full:
            return []
        mates = self._waiting.of_geometry(head.geometry, self._max_batch)
        return [job for job in mates if job is not head and not job.alone and batch.add(job)]

    def _others(self, head: Job, phase: Phase) -> list[Job]:
        others = [
            job
            for job in self._active.values()
            if job is not head and not job.alone and job.next_phase() is phase
        ]
        return sorted(others, key=self._order)

    def _one_after_another(self, phase: Phase, jobs: list[Job]) -> _Choice:
        """As many of the jobs as are done in time, at least the first; they share nothing."""
        key = "" if phase is Phase.ENCODE else jobs[0].decode_key
        unit_s = self._cost.seconds(phase, key, 1)
        count = _times_in(REACTION_S / 2, unit_s, self._max_batch)
        same = [job for job in jobs if phase is Phase.ENCODE or job.decode_key == key][:count]
        return _Choice(phase, same, key, len(same), unit_s * len(same))

    def _may_decide_ahead(self, choice: _Choice, now: float) -> bool:
        running = self._flights[-1]
        if choice.phase is Phase.DENOISE and running.work.phase is Phase.ENCODE:
            return False  # Those who are being encoded may join, or go first.
        left = self._flight_began + running.seconds - now
        allowed = max(REACTION_S - choice.unit_s, LEAD_S)
        if left > allowed + 1e-6:
            self.wake_at = now + left - allowed
            return False
        return True

    def _commit(self, choice: _Choice, aged: bool, now: float) -> Work:
        phase, jobs = choice.phase, choice.jobs
        most = min(job.units_left(phase) for job in jobs)
        k = _times_in(REACTION_S / 2, choice.unit_s, most)
        for job in jobs:
            if not job.planned[Phase.ENCODE]:
                self._waiting.discard(job, _aged_at(job))
                self._active[job.id] = job
            job.advance(phase, k)
            if phase is Phase.DENOISE:
                job.batch_rows = choice.rows
        work = Work(phase=phase, ids=tuple(job.id for job in jobs), k=k)
        seconds = k * choice.unit_s
        if not self._flights:
            self._flight_began = now
        self._flights.append(_Flight(work, tuple(jobs), choice.key, choice.rows, seconds))
        if aged or any(_aged_at(job) + job.ran <= now for job in jobs):
            self._aged_turn = now + seconds / AGED_SHARE
        return work

    # -- keeping count

    def _land(self, work: Work, advanced: int, now: float) -> _Flight:
        """Take the work out of flight and correct `planned` to what was done."""
        at = next(i for i, flight in enumerate(self._flights) if flight.work == work)
        flight = self._flights[at]
        del self._flights[at]
        self._flight_began = now
        for job in flight.jobs:
            job.done[work.phase] += advanced
            job.advance(work.phase, advanced - work.k)
        # What was decided on top of work that was cut short must come back first.
        self._settling = bool(self._flights) and (self._settling or advanced < work.k)
        return flight

    def _prepare(self, job: Job, prepared: Prepared) -> None:
        job.prepare(prepared)
        self._known.pop(job.geometry, None)
        self._known[job.geometry] = prepared
        if len(self._known) > MAX_KEYS:
            del self._known[next(iter(self._known))]

    def _alive(self, jobs: Iterable[Job]) -> list[Job]:
        return [job for job in jobs if self._jobs.get(job.id) is job]

    # -- deadlines

    def _heed_deadlines(self, now: float) -> None:
        """Raise those whose slack is no more than the time that they need."""
        while (found := self._becoming_urgent.first()) and found[0][0] <= now:
            job = found[1]
            self._becoming_urgent.discard(found[0], job)
            assert job.deadline is not None
            urgent_at = job.deadline - 2 * job.remaining(self._cost)
            if urgent_at <= now:
                self._raise(job)
            else:
                self._urgent_at[job.id] = urgent_at
                self._becoming_urgent.add((urgent_at,), job)

    def _raise(self, job: Job) -> None:
        waits = job.id not in self._active
        if waits:
            self._waiting.discard(job, _aged_at(job))
        job.urgent = True
        if waits:
            self._waiting.add(job, _aged_at(job))

    def _check_deadline(self, job: Job, now: float) -> None:
        assert job.deadline is not None
        allowed = job.deadline - now
        job.urgent = True
        ahead = self._backlog.ahead_of(job, self._jobs.values(), now)
        job.urgent = False
        needed = job.total(self._cost) + ahead.seconds
        # Before anything was measured only what is far out of reach is refused.
        if needed > allowed * (1.0 if self._cost.calibrated else 10.0):
            message = f"deadline_s={allowed:g} can't be met: about {needed:.2g} s are needed"
            raise DeadlineExceeded(message)

    def _retry_after(self) -> float:
        """When the next request should be done: a place is free then."""
        soonest = min(
            (job.remaining(self._cost) for job in self._active.values()),
            default=math.inf,
        )
        first = self._waiting.first()
        if first is not None:
            soonest = min(soonest, first.total(self._cost))
        in_flight = sum(flight.seconds for flight in self._flights)
        return min(max(soonest + in_flight, 0.1), 3600.0)


def _aged_at(job: Job) -> float:
    """When it will have waited too long, if it never runs before."""
    return job.arrival + AGEING_S * (ABOVE_ALL - job.priority)


def _times_in(seconds: float, unit_s: float, most: int) -> int:
    """How many units fit in the time, from 1 to `most`."""
    if unit_s * most <= seconds:
        return most
    return max(1, int(seconds / unit_s))
