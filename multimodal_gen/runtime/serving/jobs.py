"""Jobs that outlive a connection, and the server's process."""

from __future__ import annotations

from multimodal_gen.runtime.serving.service import Service
from multimodal_gen.runtime.serving.task import Task


class Jobs:
    """One a server."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def task(self, job_id: str) -> Task | None:
        """What makes it, while it waits or runs."""
        return self._service.task(job_id)
