"""A device that takes T(n) for n rows, under a Policy, in simulated time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from multimodal_gen.configs.sampling_params import Priority, SamplingParams
from multimodal_gen.messages.plan import BatchKey, EvaluationRun, Phase, PhaseSwitch, Prepared, Work
from multimodal_gen.messages.request import Req, Standing
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

Time = Callable[[int], float]
"""Seconds of one evaluation of n rows of the smallest picture."""
SIDE = 64
NOBODYS = Standing()


def linear(fixed: float, per_row: float) -> Time:
    return lambda n: fixed + per_row * n


SHAPES: dict[str, Time] = {
    "per row": linear(1e-4, 0.02),
    "half fixed": linear(0.02, 0.02),
    "mostly fixed": linear(0.03, 0.01),
    "nearly all fixed": linear(0.05, 0.005),
    "worse than per row": lambda n: 0.02 * n**1.3,
    "free rows": lambda n: 0.03,
}


def request(
    id: str,
    *,
    steps: int = 4,
    side: int = SIDE,
    priority: Priority = "normal",
    deadline_s: float | None = None,
    standing: Standing = NOBODYS,
) -> Req:
    params = SamplingParams(
        prompt="a red heart",
        width=side,
        height=side,
        num_frames=1,
        num_inference_steps=steps,
        priority=priority,
        deadline_s=deadline_s,
    )
    return Req(id=id, params=params, standing=standing)


def prepared_of(req: Req, *, rows: int = 1, chunks: int = 1) -> Prepared:
    """What the engine answers once it is encoded: a token for each 16 by 16 pixels."""
    tokens = (req.params.width or 0) * (req.params.height or 0) // 256
    key = BatchKey(tokens, "picture")
    runs = (EvaluationRun(key, req.params.num_inference_steps or 0, rows),)
    return Prepared(batch_keys=runs, decode_chunks=chunks)


def cost_model(*, parameters: int = 5_000_000, switches: Sequence[PhaseSwitch] = ()) -> CostModel:
    return CostModel(
        parameters=parameters, memory_bytes=0, device="cpu", path=None, switches=switches
    )


@dataclass
class Done:
    arrived: float
    finished: float

    @property
    def took(self) -> float:
        return self.finished - self.arrived


@dataclass
class Simulation:
    """Runs works one after the other, asking the policy whenever the Scheduler would."""

    policy: Policy
    time: Time
    encode_s: float = 0.005
    decode_s: float = 0.01
    rows: int = 1
    chunks: int = 1
    switches: Mapping[tuple[Phase, Phase], float] = field(default_factory=dict)
    """Seconds that the device takes from one phase to another."""
    now: float = 0.0
    on_done: Callable[[str], Iterable[Req]] = lambda id: ()
    done: dict[str, Done] = field(default_factory=dict)
    works: list[tuple[float, Work, float]] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    _arrivals: list[tuple[float, int, Req]] = field(default_factory=list)
    _queue: deque[tuple[Work, float]] = field(default_factory=deque)
    _reqs: dict[str, tuple[float, Req]] = field(default_factory=dict)
    _ends_at: float = 0.0
    _count: int = 0

    def arrive(self, at: float, req: Req) -> None:
        self._count += 1
        heapq.heappush(self._arrivals, (at, self._count, req))

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left to do, or this time."""
        while True:
            self._admit()
            self._ask()
            at = self._next_event()
            if at is None or at > until:
                return
            self.now = at
            if self._queue and self._ends_at <= at:
                self._finish()

    @property
    def phase_changes(self) -> int:
        """How often a work had another phase than the one before it."""
        phases = [work.phase for _, work, _ in self.works]
        return sum(before is not after for before, after in pairwise(phases))

    def seconds(self, work: Work) -> float:
        """Of a work, with the weights' way to the device if the one before had another phase."""
        last = self._queue[-1][0] if self._queue else self.works[-1][1] if self.works else None
        switch = self.switches.get((last.phase, work.phase), 0.0) if last is not None else 0.0
        return switch + self._working(work)

    def _working(self, work: Work) -> float:
        if work.phase is Phase.ENCODE:
            return self.encode_s * len(work.ids) * work.k
        if work.phase is Phase.DECODE:
            return self.decode_s * len(work.ids) * work.k
        scale = ((self._reqs[work.ids[0]][1].params.width or 0) / SIDE) ** 2
        return scale * self.time(self.rows * len(work.ids)) * work.k

    def _admit(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            at, _, req = heapq.heappop(self._arrivals)
            self._reqs[req.id] = (at, req)
            self.policy.submit(req, self.now)
        for id in self.policy.expired(self.now):
            self._end(id, "expired")

    def _ask(self) -> None:
        while (work := self.policy.next(self.now)) is not None:
            seconds = self.seconds(work)
            if not self._queue:
                self._ends_at = self.now + seconds
            self._queue.append((work, seconds))

    def _next_event(self) -> float | None:
        times = [self._arrivals[0][0]] if self._arrivals else []
        if self._queue:
            times.append(self._ends_at)
        if self.policy.wake_at is not None:
            times.append(max(self.policy.wake_at, self.now))
        return min(times, default=None)

    def _finish(self) -> None:
        work, seconds = self._queue.popleft()
        self.works.append((self.now, work, seconds))
        if self._queue:
            self._ends_at = self.now + self._queue[0][1]
        prepared = {}
        if work.phase is Phase.ENCODE:
            reqs = [self._reqs[id][1] for id in work.ids]
            prepared = {r.id: prepared_of(r, rows=self.rows, chunks=self.chunks) for r in reqs}
        finished = self.policy.completed(
            work, advanced=work.k, seconds=seconds, prepared=prepared, now=self.now
        )
        for id in finished:
            self.done[id] = Done(self._reqs[id][0], self.now)
            self._end(id, "done")
            for req in self.on_done(id):
                self.arrive(self.now, req)

    def _end(self, id: str, how: str) -> None:
        assert id not in self.ended, f"{id} ended twice"
        self.ended[id] = how
