"""Runs stages in order, each with its components on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.stage import Stage


class SyncExecutor:
    """Runs the stages of a phase in order, in this thread.

    It knows which components each stage uses, and is the place to move them to the device if they
    are kept elsewhere; currently all are loaded there and stay.
    """

    def __init__(
        self, components: Mapping[str, Any], stages: Mapping[Phase, Sequence[Stage]]
    ) -> None:
        """Raises LookupError if a stage uses a component that the checkpoint lacks."""
        self.stages = stages
        used = {name for phase in stages.values() for stage in phase for name in stage.components}
        if missing := used - components.keys():
            raise LookupError(f"stages use {sorted(missing)}, which is not loaded")

    def run(self, phase: Phase, states: Sequence[RequestState], k: int) -> None:
        for stage in self.stages[phase]:
            stage(states, k)
