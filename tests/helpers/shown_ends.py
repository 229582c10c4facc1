"""Ends of jobs that clients were shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx2

FINAL = ("completed", "failed", "cancelled")


@dataclass(kw_only=True)
class ShownEnds:
    """Ends that lists of jobs told, so that a second one is noticed."""

    seen: dict[str, str] = field(default_factory=dict)
    """Ends that were shown, by job."""
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    """Jobs that ended twice."""

    def look(self, answer: httpx2.Response) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = answer.raise_for_status().json()
        for job in jobs:
            if job["status"] in FINAL or job["id"] in self.seen:
                known = self.seen.setdefault(job["id"], job["status"])
                if known != job["status"]:
                    self.changed.append((job["id"], known, job["status"]))
        return jobs
