"""Keeps requests in different phases from chasing each other's weights through the bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob

SHARE = 1 / 9
"""Share of the device's time that going to another phase and back may take, while there is work in
the present one."""


class PhaseChanges:
    """The phase that the device is in, and when it may go to another one.

    A change costs the time that weights take to the device, often much more than the work of a
    request. So the work of a phase is done for all requests, before that of another, until it has
    lasted long enough to pay for the change.
    """

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._phase: Phase | None = None
        self._spent = 0.0
        """Seconds of work since it came there."""

    def price(self, phase: Phase) -> float:
        """Seconds until work of this phase can begin."""
        return 0.0 if self._phase is None else self._cost.switch_s(self._phase, phase)

    def note(self, phase: Phase, seconds: float) -> None:
        """Work of this phase was decided, of so many seconds."""
        if phase is not self._phase:
            self._phase, self._spent = phase, 0.0
        self._spent += seconds

    def pays(self, phase: Phase | None) -> bool:
        """True if going there now, and back, takes no more than its share."""
        if phase is None or self._phase is None:
            return True
        both_ways = self.price(phase) + self._cost.switch_s(phase, self._phase)
        return self._spent * SHARE >= both_ways * (1 - SHARE)

    def may_leave(self, head: SchedulerJob) -> bool:
        """True if the job whose turn it is may go on, whatever its phase."""
        return head.precedes or head.urgent or self.pays(head.phase)

    def kept_in_phase(
        self,
        head: SchedulerJob,
        others: Sequence[SchedulerJob],
        order: Callable[[SchedulerJob], Any],
    ) -> SchedulerJob:
        """Return the first of the others that needs no change of phase, or else the head."""
        staying = [job for job in others if job.phase is self._phase]
        return min(staying, key=order, default=head)
