"""Who wants to know what becomes of tasks, to count and to trace it."""

from __future__ import annotations

from typing import Protocol

from multimodal_gen.client.request_handle import Output
from multimodal_gen.serving.task import Task


class Observer(Protocol):
    """Told on the service's loop; must be quick."""

    def started(self, task: Task) -> None:
        """It is there, in the context of who asked for it."""

    def made(self, task: Task, output: Output) -> None:
        """One of its outputs is there."""

    def ended_early(self, task: Task) -> None:
        """It was not taken, failed or was cancelled; may be told more than once."""
