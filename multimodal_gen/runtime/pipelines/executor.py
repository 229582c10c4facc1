"""Runs stages one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from multimodal_gen.runtime.pipelines.request_state import RequestState


class Stage(Protocol):
    """One part of a phase: advances the states it is given by k units."""

    def __call__(self, states: Sequence[RequestState], k: int) -> None: ...


class SyncExecutor:
    """Runs the stages of a phase in order, in this thread. All components are on the device."""

    def run(self, stages: Sequence[Stage], states: Sequence[RequestState], k: int) -> None:
        for stage in stages:
            stage(states, k)
