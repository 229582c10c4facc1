"""Engines in simulated time."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from multimodal_gen.benchmarks.fleet.workload import (
    ENCODE_S,
    KINDS,
    LORA_LOAD_S,
    MAX_BATCH,
    SimulatedJob,
)
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.plan import BatchKey, EvaluationRun, Phase, Prepared, Work
from multimodal_gen.scheduling.cost_model import PROMPT, CostModel
from multimodal_gen.scheduling.policy import Policy

LORAS_HELD = 8
ROWS_TRIED = (1, 2, 4, 8)


class SimulatedEngine(Protocol):
    """Interface of the simulation to an engine."""

    def submit(self, job: SimulatedJob, now: float) -> None:
        """Raises DeadlineExceeded."""

    def leave(self, job_id: str) -> None:
        """The job was cancelled."""

    def wake_at(self) -> float | None:
        """Time of its next event."""

    def run(self, now: float) -> tuple[list[str], list[str]]:
        """Go on until now; ids of jobs that are done, and of those whose deadline has passed."""

    def begun(self, job_id: str) -> bool: ...

    @property
    def costs(self) -> EvaluationCosts: ...


class PolicyEngine:
    """A device of production's policy. Plans take what their jobs' kinds say."""

    def __init__(self) -> None:
        self._cost = CostModel(parameters=12_000_000_000, memory_bytes=0, device="cuda", path=None)
        _know_all_kinds(self._cost)
        self._policy = Policy(self._cost, max_batch=MAX_BATCH, max_queue=10**6)
        self._planned: deque[tuple[Work, float]] = deque()
        self._ends_at: float | None = None
        self._jobs: dict[str, SimulatedJob] = {}
        self._loras: OrderedDict[str, None] = OrderedDict()

    @property
    def costs(self) -> EvaluationCosts:
        return self._policy.evaluation_costs()

    def submit(self, job: SimulatedJob, now: float) -> None:
        self._policy.submit(job.req, now)
        self._jobs[job.req.id] = job

    def leave(self, job_id: str) -> None:
        self._policy.remove(job_id)

    def begun(self, job_id: str) -> bool:
        return self._jobs[job_id].done > 0

    def wake_at(self) -> float | None:
        times = [at for at in (self._ends_at, self._policy.wake_at) if at is not None]
        return min(times, default=None)

    def run(self, now: float) -> tuple[list[str], list[str]]:
        done = []
        if self._ends_at is not None and self._ends_at <= now:
            done = self._finish(now)
        late = self._policy.expired(now)
        while (work := self._policy.next(now)) is not None:
            seconds = self._seconds(work)
            if not self._planned:
                self._ends_at = now + seconds
            self._planned.append((work, seconds))
        return done, late

    def _finish(self, now: float) -> list[str]:
        work, seconds = self._planned.popleft()
        self._ends_at = now + self._planned[0][1] if self._planned else None
        prepared = {}
        if work.phase is Phase.ENCODE:
            prepared = {id: _prepared(self._jobs[id]) for id in work.ids}
        if work.phase is Phase.DENOISE:
            for job_id in work.ids:
                self._jobs[job_id].done += work.k
        return self._policy.completed(
            work, advanced=work.k, seconds=seconds, prepared=prepared, now=now
        )

    def _seconds(self, work: Work) -> float:
        jobs = [self._jobs[job_id] for job_id in work.ids]
        if work.phase is Phase.ENCODE:
            return ENCODE_S * len(jobs) + sum(map(self._loading_s, jobs))
        if work.phase is Phase.DECODE:
            return sum(job.kind.decode_s for job in jobs)
        return work.k * max(job.kind.together_s(len(jobs)) for job in jobs)

    def _loading_s(self, job: SimulatedJob) -> float:
        """Seconds to load its LoRA, unless it is one of the last that were used."""
        seconds = 0.0
        for lora in job.req.params.lora:
            seconds += LORA_LOAD_S * (lora.name not in self._loras)
            self._loras[lora.name] = None
            self._loras.move_to_end(lora.name)
        while len(self._loras) > LORAS_HELD:
            self._loras.popitem(last=False)
        return seconds


class WholeJobEngine:
    """A device that runs one job after the other, each to its end."""

    def __init__(self) -> None:
        self._queue: deque[SimulatedJob] = deque()
        self._ends_at: float | None = None
        self._in_vain: str | None = None

    @property
    def costs(self) -> EvaluationCosts:
        return EvaluationCosts()

    def submit(self, job: SimulatedJob, now: float) -> None:
        self._queue.append(job)

    def leave(self, job_id: str) -> None:
        """One that runs goes on to its end, in vain."""
        if self.begun(job_id):
            self._in_vain = job_id
        else:
            self._queue = deque(job for job in self._queue if job.req.id != job_id)

    def begun(self, job_id: str) -> bool:
        return bool(self._queue) and self._queue[0].req.id == job_id

    def wake_at(self) -> float | None:
        return self._ends_at

    def run(self, now: float) -> tuple[list[str], list[str]]:
        done = []
        if self._ends_at is not None and self._ends_at <= now:
            ended = self._queue.popleft().req.id
            done = [] if ended == self._in_vain else [ended]
            self._ends_at = self._in_vain = None
        if self._queue and self._ends_at is None:
            self._ends_at = now + self._queue[0].kind.alone_s
        return done, []


def _know_all_kinds(cost: CostModel) -> None:
    """Let a cost model know what an engine has measured after a while."""
    for kind in KINDS.values():
        key, decode_key = _keys(kind.size)
        for _ in range(3):
            for rows in ROWS_TRIED:
                cost.observe(Phase.DENOISE, key, rows, kind.together_s(rows))
            cost.observe(Phase.DECODE, decode_key, 1, kind.decode_s)
            cost.observe(Phase.ENCODE, PROMPT, 1, ENCODE_S)


def _prepared(job: SimulatedJob) -> Prepared:
    key, _ = _keys(job.kind.size)
    return Prepared(batch_keys=(EvaluationRun(key, job.kind.steps, 1),), decode_chunks=1)


def _keys(size: tuple[int, int, int]) -> tuple[BatchKey, BatchKey]:
    """Keys of an evaluation and of decoding."""
    width, height, frames = size
    latent_frames = (frames - 1) // 4 + 1
    return BatchKey(width * height // 256 * latent_frames), BatchKey(width * height * frames // 256)
