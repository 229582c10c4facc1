"""Decides what runs next: a pure function of the queue, the cost model and the given time.

Owners take turns, by the time of the device that they took; a request of another owner joins a
batch while that is no slower for the owner whose turn it is than to take turns. Among one owner's:

Order: priority (one level up near a deadline), then the least predicted remaining time times total
time, then arrival. For jobs that have not started, the product orders by time. It also keeps a long
job that is nearly half done from going before a short one: a job that is longer by a factor f goes
first only if its time left is less than 1/f of the short one's.

Ageing: the longest-waiting of the owner's aged jobs gets a fixed share of the device, whatever the
order. So nothing starves, and no job is delayed by more than that share.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import NamedTuple

from multimodal_gen.errors import DeadlineExceeded, QueueFull
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.plan import Phase, Prepared, Runner, Work
from multimodal_gen.messages.request import Req
from multimodal_gen.scheduling.batch_planner import MAX_BEGUN, BatchPlanner, Choice
from multimodal_gen.scheduling.cost_model import MAX_KEYS, CostModel
from multimodal_gen.scheduling.geometry import GeometryEstimate, WorkKind, work_kind
from multimodal_gen.scheduling.job import (
    Order,
    SchedulerJob,
    decode_key_of,
)
from multimodal_gen.scheduling.phase_changes import PhaseChanges
from multimodal_gen.scheduling.planned_work import PlannedWork
from multimodal_gen.scheduling.queue.backlog import Backlog
from multimodal_gen.scheduling.queue.deadlines import Deadlines
from multimodal_gen.scheduling.queue.waiting import WaitingLines
from multimodal_gen.scheduling.turns import Turns

AGED_SHARE = 1 / 6
"""Share of the device for aged jobs."""
_BEGUN_TOGETHER = 16
"""Requests that may be encoded before others go on, where a change of phase has a price."""
LONGEST_RETRY_S = 3600.0
SOONEST_RETRY_S = 0.1
TOLD_TOKENS = tuple(2**power for power in range(4, 22))
"""Numbers of tokens for which clients are told the seconds of an evaluation."""


class ProgressEstimate(NamedTuple):
    """Progress of a request, in the user's steps."""

    step: int
    total: int
    queue_position: int
    eta_s: float
    phase: str
    runner: Runner | None
    batch_size: int
    """All three as of `RequestProgress`."""


class Policy:
    """The queue, and the decisions on it. At most one plan is decided ahead of the device."""

    def __init__(self, cost: CostModel, *, max_batch: int, max_queue: int) -> None:
        self._cost = cost
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._jobs: dict[str, SchedulerJob] = {}
        self._begun: dict[str, SchedulerJob] = {}
        self._held: dict[str, SchedulerJob] = {}
        self._waiting = WaitingLines()
        self._turns = Turns()
        self._deadlines = Deadlines(cost)
        self._planned = PlannedWork()
        self._changes = PhaseChanges(cost)
        self._planner = BatchPlanner(
            cost, self._waiting, self._turns, self._changes, max_batch=max_batch
        )
        self._backlog = Backlog(cost, max_batch)
        self._estimates: dict[WorkKind, GeometryEstimate] = {}
        self._usual_rows = 1
        """Rows of the last request that was encoded."""
        self._arrivals = 0
        self._turn_of_the_aged: dict[str | None, float] = {}
        self.wake_at: float | None = None
        """Time to call `next` again after it returned None, if nothing happens before."""

    @property
    def running(self) -> int:
        """Number of started requests, whether or not they are in the current batch."""
        return len(self._begun)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._held)

    # -- admission

    def submit(self, req: Req, now: float, *, held: bool = False) -> bool:
        """Queue the request. Returns False if its id is already queued or running: the same
        request.

        A `held` request does not run before it is released.

        Raises QueueFull, and DeadlineExceeded if it can't finish in time even at its highest
        possible preference.
        """
        if req.id in self._jobs:
            return False
        if len(self._jobs) >= self._max_queue:
            alive = len(self._jobs)
            message = f"{alive} requests are queued or running; the maximum is {self._max_queue}"
            raise QueueFull(message, self._retry_after())
        self._arrivals += 1
        job = SchedulerJob(req, self._arrivals, now, self._estimate_of(req))
        self._check_deadline(job, now)
        self._jobs[job.id] = job
        self._turns.enter(job.owner, job.weight)
        self._backlog.add(job)
        if held:
            self._held[job.id] = job
        else:
            self._waiting.add(job)
        self._deadlines.add(job)
        return True

    def release(self, request_id: str) -> None:
        """Let a held request run: what it waited for is available."""
        self._waiting.add(self._held.pop(request_id))

    def remove(self, request_id: str) -> bool:
        """Remove a request that has ended; its work in flight is no longer credited.

        Returns whether it was queued or running.
        """
        job = self._jobs.pop(request_id, None)
        if job is None:
            return False
        if self._begun.pop(request_id, None) is None and self._held.pop(request_id, None) is None:
            self._waiting.discard(job)
        self._backlog.discard(job)
        self._deadlines.discard(job)
        self._turns.leave(job.owner)
        if not self._jobs:
            self._turn_of_the_aged.clear()
        return True

    def expired(self, now: float) -> list[str]:
        """Remove requests whose deadline has passed, and return their ids."""
        late = []
        while (job := self._deadlines.passed(now)) is not None:
            late.append(job.id)
            self.remove(job.id)
        return late

    def use(self, runner: Runner) -> None:
        """Run the evaluations of requests that are begun from now on so, unless a faster way is
        ready: all ranks can."""
        self._planner.ready.add(runner)

    # -- what runs

    def next(self, now: float) -> Work | None:
        """Decide what to run next, assuming that everything decided before runs as decided.

        Returns None if nothing can be decided: no work, a phase that must be acknowledged first,
        one plan ahead already, or too long before the end of the running plan (`wake_at` is set).
        """
        self.wake_at = None
        if self._planned.closed:
            return None
        if wait := self._planned.wait(now):
            self.wake_at = now + wait
            return None
        self._heed_deadlines(now)
        ready = sorted((j for j in self._begun.values() if j.phase is not None), key=self._order)
        head = self._first(ready)
        if head is None:
            return None
        if not self._changes.may_leave(head):
            head = self._changes.kept_in_phase(head, [*ready, *self._newcomers(ready)], self._order)
        owner = None if head.precedes else head.owner
        aged = self._longest_waiting(owner, ready, now)
        due = now >= self._turn_of_the_aged.get(owner, 0.0)
        if aged is not None and due and self._changes.pays(aged.phase):
            head = aged
        choice = self._planner.choose(head, ready, len(self._jobs), now)
        choice = choice._replace(switch_s=self._changes.price(choice.phase))
        if choice.phase is Phase.DENOISE and self._planned.encoding:
            return None
        if aged in choice.jobs:
            self._turn_of_the_aged[owner] = now + choice.seconds / AGED_SHARE
        self._turns.begin(head.owner)
        return self._decide(choice, now)

    def completed(
        self,
        work: Work,
        *,
        advanced: int,
        seconds: float,
        prepared: dict[str, Prepared],
        now: float,
        enhanced: Collection[str] = (),
        peak_bytes: int = 0,
    ) -> list[str]:
        """Record that work ended after `advanced` units (fewer than k if it was cut short or
        skipped), the memory that it added on a rank (0 if unknown), and the requests whose prompts
        are `enhanced` now.

        Removes requests whose last chunk is decoded, and returns their ids.
        """
        planned = self._planned.finish(work, advanced, now, failed=False)
        if advanced:
            unit_s = max(seconds - planned.switch_s, seconds / 2) / advanced
            self._cost.observe(work.phase, planned.key, planned.rows, unit_s, peak_bytes)
        self._charge(planned.jobs, seconds - planned.seconds)
        for job in planned.jobs:
            job.ran += seconds
            job.alone = job.alone and not (advanced and len(planned.jobs) == 1)
            if job.id in enhanced:
                job.end_enhancing()
            if job.id in prepared:
                if job.prepare(prepared[job.id]):
                    self._backlog.revise()
                self._usual_rows = job.most_rows
        return self._leave([job for job in planned.jobs if job.finished])

    def failed(self, work: Work, *, advanced: int, out_of_memory: bool, now: float) -> list[str]:
        """Record that a batch's work raised after `advanced` units.

        After running out of memory the batch is retried with fewer rows, after other errors each
        request alone. Removes requests that failed alone, and returns their ids.
        """
        planned = self._planned.finish(work, advanced, now, failed=True)
        too_large = out_of_memory and work.phase is Phase.DENOISE and planned.rows > 0
        if too_large:
            self._cost.out_of_memory(planned.key, planned.rows)
        if len(planned.jobs) == 1:
            return self._leave(planned.jobs)
        for job in planned.jobs:
            job.alone = not too_large
        return []

    # -- reporting

    def progress(self, request_id: str, now: float) -> ProgressEstimate:
        """Progress of a request. Raises KeyError if it is neither queued nor running."""
        job = self._jobs[request_id]
        own = self._backlog.seconds_left(job)
        mates = self._planned.mates(job)
        if mates and job.prepared is not None:
            phase = job.current_phase
            return ProgressEstimate(job.steps_done(), job.steps, 0, own, phase, job.runner, mates)
        ahead = self._backlog.ahead_of(job, self._begun.values())
        begun = request_id in self._begun
        position, phase = (0, job.current_phase) if begun else (ahead.jobs, "")
        eta_s = ahead.seconds + own
        steps = job.steps_done(), job.steps
        return ProgressEstimate(*steps, position, eta_s, phase, job.runner, mates)

    def evaluation_costs(self) -> EvaluationCosts:
        """Predicted seconds of one evaluation of a request, by tokens."""
        seconds = [self._cost.least_seconds(tokens, self._usual_rows) for tokens in TOLD_TOKENS]
        return EvaluationCosts(tuple(zip(TOLD_TOKENS, accumulate(seconds, max), strict=True)))

    # -- deciding

    def _newcomers(self, ready: Sequence[SchedulerJob]) -> list[SchedulerJob]:
        """Jobs that can be encoded next, unless many have begun: each of those holds memory."""
        many = len(ready) >= max(MAX_BEGUN * self._max_batch, _BEGUN_TOGETHER)
        return [] if many else self._waiting.firsts()

    def _first(self, ready: list[SchedulerJob]) -> SchedulerJob | None:
        """The job whose turn it is. Orders are compared among owners of equal accounts only, as
        that takes longest."""
        first = [*ready[:1], *self._waiting.firsts()]
        turns = [(not job.precedes, self._turns.account(job.owner)) for job in first]
        least = min(turns, default=None)
        equal = [job for job, turn in zip(first, turns, strict=True) if turn == least]
        return min(equal, key=self._order, default=None)

    def _longest_waiting(
        self, owner: str | None, ready: list[SchedulerJob], now: float
    ) -> SchedulerJob | None:
        """The aged job of this owner, or of all if None, that has waited longest."""
        oldest = self._waiting.oldest(owner)
        aged = [job for job in ready if owner in (None, job.owner) and job.aged(now)]
        if oldest is not None and oldest.aged(now):
            aged.append(oldest)
        return min(aged, key=lambda job: (job.aged_at, job.number), default=None)

    def _order(self, job: SchedulerJob) -> tuple[bool, float, Order]:
        return not job.precedes, self._turns.account(job.owner), job.order(self._cost)

    def _decide(self, choice: Choice, now: float) -> Work:
        if choice.phase in (Phase.ENHANCE, Phase.ENCODE):
            for job in (job for job in choice.jobs if job.id not in self._begun):
                self._waiting.discard(job)
                self._backlog.discard(job)
                self._begun[job.id] = job
                job.runner = self._planner.runner_of(job)
        if choice.phase is Phase.DENOISE:
            for job in choice.jobs:
                job.joined(choice.rows)
        self._changes.note(choice.phase, choice.k * choice.unit_s)
        self._charge(choice.jobs, choice.seconds)
        return self._planned.add(choice, now)

    def _charge(self, jobs: Sequence[SchedulerJob], seconds: float) -> None:
        """Book the time of the device to the owners of these jobs, in equal parts."""
        for job in jobs:
            self._turns.charge(job.owner, seconds / len(jobs))

    def _heed_deadlines(self, now: float) -> None:
        for job in self._deadlines.hurried(now):
            begun = job.id in self._begun
            waits = not begun and job.id not in self._held
            if waits:
                self._waiting.discard(job)
            self._backlog.discard(job)
            job.set_urgent(True)
            if waits:
                self._waiting.add(job)
            if not begun:
                self._backlog.add(job)

    # -- bookkeeping

    def _estimate_of(self, req: Req) -> GeometryEstimate:
        kind = work_kind(req)
        found = self._estimates.pop(kind, None) or GeometryEstimate(decode_key_of(req))
        self._estimates[kind] = found
        if len(self._estimates) > MAX_KEYS:
            del self._estimates[next(iter(self._estimates))]
        return found

    def _leave(self, jobs: list[SchedulerJob] | tuple[SchedulerJob, ...]) -> list[str]:
        """Remove the jobs that have not been removed yet, and return their ids."""
        ids = [job.id for job in jobs if self._jobs.get(job.id) is job]
        for request_id in ids:
            self.remove(request_id)
        return ids

    def _check_deadline(self, job: SchedulerJob, now: float) -> None:
        if job.deadline is None:
            return
        allowed = job.deadline - now
        job.set_urgent(True)
        ahead = self._backlog.ahead_of(job, self._begun.values())
        job.set_urgent(False)
        needed = job.total(self._cost) + ahead.seconds
        if needed > allowed * self._cost.doubt(job.key):
            message = f"deadline_s={allowed:g} can't be met: about {needed:.2g} s are needed"
            raise DeadlineExceeded(message)

    def _retry_after(self) -> float:
        """Seconds until the next request finishes and frees a place."""
        alive = [*self._begun.values(), *self._waiting.firsts()]
        soonest = min((job.remaining(self._cost) for job in alive), default=0.0)
        return min(max(soonest + self._planned.seconds, SOONEST_RETRY_S), LONGEST_RETRY_S)
