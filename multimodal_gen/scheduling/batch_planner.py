"""Chooses the next work for the job whose turn it is, and the jobs that share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from multimodal_gen.messages.plan import BatchKey, Phase, Runner
from multimodal_gen.messages.request import RUNNERS
from multimodal_gen.scheduling.batching import EvaluationBatch
from multimodal_gen.scheduling.cost_model import PROMPT, CostModel
from multimodal_gen.scheduling.job import SchedulerJob
from multimodal_gen.scheduling.phase_changes import PhaseChanges
from multimodal_gen.scheduling.queue.waiting import WaitingLines
from multimodal_gen.scheduling.turns import Turns
from multimodal_gen.scheduling.working_memory import can_capture

REACTION_S = 0.05
"""Upper bound on when a new or cancelled request takes effect (or one unit of work, if that is
longer). The running plan and the one decided ahead share it."""
LEAD_S = 0.010
"""Time before the end of a plan at which the next one is decided: early enough for the device, and
late enough to include requests that arrive or leave meanwhile."""
PLAN_S = REACTION_S - LEAD_S
"""Maximum duration of a plan with several units."""
MAX_BEGUN = 4
"""Limit on started requests, in full batches; above it no request is started just to fill a batch,
since each one holds memory."""


class Choice(NamedTuple):
    phase: Phase
    jobs: Sequence[SchedulerJob]
    key: BatchKey
    rows: int
    """Rows of the evaluation; for prompts and chunks, the number of requests."""
    k: int
    unit_s: float
    """Predicted seconds for one unit of the whole batch."""
    switch_s: float = 0.0
    """Predicted seconds until the weights of the phase are on the device."""
    untried_bytes: int = 0
    """As of `Work`."""
    runner: Runner = "eager"
    """As of `Work`."""

    @property
    def seconds(self) -> float:
        """Predicted seconds of all of its units."""
        return self.k * self.unit_s + self.switch_s


class BatchPlanner:
    """Turns the head job's next phase, or what should run before it, into a choice."""

    def __init__(
        self,
        cost: CostModel,
        waiting: WaitingLines,
        turns: Turns,
        changes: PhaseChanges,
        *,
        max_batch: int,
    ) -> None:
        self._cost = cost
        self._waiting = waiting
        self._turns = turns
        self._changes = changes
        self._max_batch = max_batch
        self.ready: set[Runner] = {"eager"}
        """Runners that all ranks have."""

    def choose(
        self, head: SchedulerJob, ready: Sequence[SchedulerJob], alive: int, now: float
    ) -> Choice:
        """Choose the next work. `ready`: started jobs that can continue, in order; may include the
        head. `alive`: number of requests that are queued or running."""
        others = [] if head.alone else [j for j in ready if j is not head and not j.alone]
        if head.phase is Phase.DECODE:
            mates = [
                j for j in others if j.phase is Phase.DECODE and j.decode_key == head.decode_key
            ]
            return self._in_turn(Phase.DECODE, head.decode_key, [head, *mates])
        if head.phase is Phase.ENHANCE:
            return self._in_turn(Phase.ENHANCE, PROMPT, [head])
        if free := self._without_rows(head, others):
            return free
        limit = self._max_batch
        slowdown = self._turns.slowdown(head.owner)
        batch = EvaluationBatch(
            head, self._cost, max_batch=limit, alive=alive, slowdown=slowdown, now=now
        )
        runner = self.runner_of(head)
        for job in others:
            alike = job.key == batch.key and self.runner_of(job) == runner
            if job.phase is Phase.DENOISE and alike:
                batch.add(job)
        newcomers = self._newcomers(batch, head, len(ready)) if self._may_encode(head) else []
        if head.phase is Phase.ENCODE:
            return self._in_turn(Phase.ENCODE, PROMPT, [head, *newcomers])
        if newcomers:
            return self._in_turn(Phase.ENCODE, PROMPT, newcomers)
        return self._together(batch)

    def _without_rows(self, head: SchedulerJob, others: Sequence[SchedulerJob]) -> Choice | None:
        """Evaluations that the denoiser has no part in, of one key after another: they go first,
        since their requests may share the head's evaluation afterwards."""
        if head.phase is not Phase.DENOISE:
            return None
        free = [j for j in (head, *others) if j.phase is Phase.DENOISE and j.rows == 0]
        if not free:
            return None
        free = [j for j in free if j.key == free[0].key]
        seconds = self._cost.seconds(Phase.DENOISE, free[0].key, 0)
        return _sized(Phase.DENOISE, free, free[0].key, 0, seconds)

    def runner_of(self, job: SchedulerJob) -> Runner:
        """The job's runner, or the one that it gets if it is begun now."""
        if job.runner is None:
            return next(each for each in reversed(RUNNERS) if self._suits(each, job))
        return job.runner if job.runner in self.ready else "eager"

    def _suits(self, runner: Runner, job: SchedulerJob) -> bool:
        """True for a runner that is ready, and made for evaluations of the job's size."""
        if runner not in self.ready or runner != "captured":
            return runner in self.ready
        return can_capture(self._cost.parameters, job.key.tokens * job.most_rows)

    def _may_encode(self, head: SchedulerJob) -> bool:
        """False if the device would leave the head's phase for that, at too high a price."""
        return head.phase is Phase.ENCODE or self._changes.pays(Phase.ENCODE)

    def _newcomers(
        self, batch: EvaluationBatch, head: SchedulerJob, begun: int
    ) -> list[SchedulerJob]:
        """Waiting jobs of the head's owner that would share the evaluation: encoded first, so that
        they join at once."""
        if head.alone or batch.full or begun >= MAX_BEGUN * self._max_batch:
            return []
        mates = self._waiting.mates_of(head, self._max_batch)
        runner = self.runner_of(head)
        fit = (
            j
            for j in mates
            if j is not head
            and not j.alone
            and j.phase is Phase.ENCODE
            and self.runner_of(j) == runner
        )
        return [j for j in fit if batch.add(j)]

    def _together(self, batch: EvaluationBatch) -> Choice:
        seconds = self._cost.seconds(Phase.DENOISE, batch.key, batch.rows)
        chosen = _sized(Phase.DENOISE, batch.jobs, batch.key, batch.rows, seconds)
        return chosen._replace(
            untried_bytes=self._cost.untried_bytes(batch.key, batch.rows),
            runner=self.runner_of(batch.jobs[0]),
        )

    def _in_turn(self, phase: Phase, key: BatchKey, jobs: Sequence[SchedulerJob]) -> Choice:
        """As many of the jobs, in order, as fit into one plan; at least the first."""
        unit_s = self._cost.seconds(phase, key, 1)
        jobs = jobs[: _times_in_plan(unit_s, self._max_batch)]
        return _sized(phase, jobs, key, len(jobs), unit_s * len(jobs))


def _sized(
    phase: Phase, jobs: Sequence[SchedulerJob], key: BatchKey, rows: int, unit_s: float
) -> Choice:
    most = min(job.units_left(phase) for job in jobs)
    return Choice(phase, jobs, key, rows, _times_in_plan(unit_s, most), unit_s)


def _times_in_plan(unit_s: float, most: int) -> int:
    """Number of units in one plan, from 1 to `most`."""
    if unit_s * most <= PLAN_S:
        return most
    return max(1, int(PLAN_S / unit_s))
