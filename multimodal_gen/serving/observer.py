"""Interface for metrics and tracing of tasks."""

from __future__ import annotations

from typing import Protocol

from multimodal_gen.client.request_handle import Output
from multimodal_gen.serving.task import Task


class Observer(Protocol):
    """Called on the service's loop; must be fast."""

    def started(self, task: Task) -> None:
        """A task was created; called in the context of its request."""

    def made(self, task: Task, output: Output) -> None:
        """One of the task's outputs is ready."""

    def ended_early(self, task: Task) -> None:
        """The task was refused, failed or cancelled; may be called more than once."""
