"""Tracks issued plans: which ranks have acknowledged them, and which are late."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import zmq

from multimodal_gen.errors import EngineDied, OutOfMemory
from multimodal_gen.messages.plan import Ack, Plan
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.scheduler.request_record import RequestRecord

AGREE_S = 1.0
"""After one rank reports an error inside a step, the others have this long to report the same."""


@dataclass
class IssuedPlan:
    """A plan that was sent to all ranks."""

    plan: Plan
    began: float
    """Time at which the ranks could start it: when it was sent, or the previous plan ended."""
    records: Mapping[str, RequestRecord]
    """Records of its requests by id. After a cancel, a new request may have the same id."""
    acks: dict[int, Ack] = field(default_factory=dict)
    bodies: list[list[zmq.Frame]] = field(default_factory=list)
    """Frames of the arrays that the first rank sent."""
    failed_at: float | None = None

    @property
    def answers(self) -> list[Ack]:
        """Acknowledgements of all ranks, in rank order."""
        return [self.acks[rank] for rank in sorted(self.acks)]

    @property
    def out_of_memory(self) -> WireError | None:
        """Error of a rank that ran out of memory, whether or not others reported the same."""
        errors = (ack.error for ack in self.answers if ack.error is not None)
        return next((error for error in errors if error.code == OutOfMemory.code), None)

    def error(self) -> WireError | None:
        """Error that all ranks reported. Raises EngineDied if only some reported one."""
        answers = self.answers
        errors = [ack.error for ack in answers if ack.error is not None]
        if errors and (len(errors) < len(answers) or len({ack.advanced for ack in answers}) > 1):
            raise EngineDied(f"a rank failed inside a step: {errors[0].message}")
        return errors[0] if errors else None


class IssuedPlans:
    """Queue of issued plans: ranks carry them out by number."""

    def __init__(self, num_ranks: int, step_timeout: float) -> None:
        self.next_number = 0
        self._num_ranks = num_ranks
        self._step_timeout = step_timeout
        self._plans: deque[IssuedPlan] = deque()

    def __bool__(self) -> bool:
        return bool(self._plans)

    @property
    def have_work(self) -> bool:
        """True if any of them contains work, not only state changes."""
        return any(issued.plan.work for issued in self._plans)

    @property
    def failed(self) -> bool:
        """True if a rank has reported an error and others have not answered yet."""
        return any(issued.failed_at for issued in self._plans)

    def add(self, plan: Plan, records: Mapping[str, RequestRecord], now: float) -> None:
        self.next_number = plan.number + 1
        self._plans.append(IssuedPlan(plan, now, records))

    def acknowledge(self, ack: Ack, bodies: list[list[zmq.Frame]], now: float) -> None:
        """Record one rank's acknowledgement. Raises EngineDied for a plan that is not in
        progress."""
        issued = next((each for each in self._plans if each.plan.number == ack.number), None)
        if issued is None:
            raise EngineDied(f"rank {ack.rank} acknowledged plan {ack.number}, which is not due")
        issued.acks[ack.rank] = ack
        issued.bodies = issued.bodies or bodies
        if ack.error is not None and issued.failed_at is None:
            issued.failed_at = now

    @property
    def first(self) -> IssuedPlan | None:
        """The plan that the ranks are at."""
        return self._plans[0] if self._plans else None

    @property
    def finished(self) -> IssuedPlan | None:
        """The first plan, if every rank has acknowledged it."""
        first = self.first
        return first if first and len(first.acks) == self._num_ranks else None

    def remove_first(self, now: float) -> None:
        """Remove the first plan: the ranks are at the next one."""
        self._plans.popleft()
        if self._plans:
            self._plans[0].began = now

    def check_silence(self, now: float) -> None:
        """Raise EngineDied if the first plan is late: measured from when the ranks could start it
        or, if a rank failed in it, from when the others could have reported the same."""
        if not self._plans:
            return
        due = self._plans[0]
        if due.failed_at is not None and now - max(due.failed_at, due.began) > AGREE_S:
            error = next(ack.error for ack in due.acks.values() if ack.error is not None)
            ranks = sorted(due.acks)
            raise EngineDied(f"only rank {ranks} answered a step, with an error: {error.message}")
        if now - due.began > self._step_timeout:
            silent = sorted(set(range(self._num_ranks)) - set(due.acks))
            raise EngineDied(f"rank {silent} did not respond for {self._step_timeout:g} s")
