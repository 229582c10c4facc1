"""The last requests that failed, with their reasons."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from multimodal_gen.client.request_handle import Output
from multimodal_gen.errors import Cancelled
from multimodal_gen.serving.task import Task

MOST = 50
_PROMPTS = frozenset({"prompt", "negative_prompt"})
_LONGEST = 500


@dataclass(frozen=True)
class Failure:
    """A request that was accepted, and failed."""

    at: float
    """Seconds since 1970."""
    request: str
    """Id of the request or job."""
    key: str
    """Name of its key."""
    model: str
    code: str
    reason: str
    """What its client was told, unless that quotes a prompt."""


class RecentFailures:
    """An Observer that remembers failures of this server, newest first."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    @property
    def newest_first(self) -> Sequence[Failure]:
        return [*reversed(self._failures.values())]

    def started(self, task: Task) -> None: ...

    def made(self, task: Task, output: Output) -> None: ...

    def ended_early(self, task: Task) -> None:
        error = task.error
        if error is None or isinstance(error, Cancelled) or task.id in self._failures:
            return
        quotes = error.field in _PROMPTS
        reason = f"{error.field} was refused" if quotes else error.message[:_LONGEST]
        failure = Failure(time.time(), task.id, task.owner.name, task.model, error.code, reason)
        self._failures[task.id] = failure
        if len(self._failures) > MOST:
            self._failures.popitem(last=False)
