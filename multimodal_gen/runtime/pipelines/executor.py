"""Runs stages one after another, each with its components in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from multimodal_gen.runtime.pipelines.request_state import RequestState


class Stage(Protocol):
    """One part of a phase. It says which components it uses and advances the states it is given."""

    components: tuple[str, ...]

    def __call__(self, states: Sequence[RequestState], k: int) -> None: ...


class SyncExecutor:
    """Runs the stages of a phase in order, in this thread."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        self._components = components

    def run(self, stages: Sequence[Stage], states: Sequence[RequestState], k: int) -> None:
        for stage in stages:
            self._make_resident(stage.components)
            stage(states, k)

    def _make_resident(self, names: Sequence[str]) -> None:
        """All components stay on the device for now; offloading will move them here."""
        for name in names:
            assert name in self._components, name
