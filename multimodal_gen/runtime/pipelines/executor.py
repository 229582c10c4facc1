"""Runs stages in order, each with its components on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Stage


class SyncExecutor:
    """Runs the stages of a phase in order, in this thread.

    Before each stage, the components that it needs now are made resident.
    """

    def __init__(
        self,
        components: Mapping[str, Any],
        stages: Mapping[Phase, Sequence[Stage]],
        residency: Residency,
    ) -> None:
        """Raises LookupError if a stage uses a component that the checkpoint lacks."""
        self.stages = stages
        self._residency = residency
        used = {name for phase in stages.values() for stage in phase for name in stage.uses}
        if missing := used - components.keys():
            raise LookupError(f"stages use {sorted(missing)}, which is not loaded")

    def hold(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        """Make the components resident that the first stage needs."""
        for stage in self.stages[phase][:1]:
            self._hold(stage, states, k)

    def run(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        for stage in self.stages[phase]:
            self._hold(stage, states, k)
            stage(states, k)

    def _hold(self, stage: Stage, states: Sequence[RequestState], k: int) -> None:
        if self._residency.moves:  # else nothing changes from plan to plan
            self._residency.hold(stage.components(states, k))
