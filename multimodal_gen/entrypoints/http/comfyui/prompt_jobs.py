"""Prompts as `/api/jobs` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from multimodal_gen.entrypoints.http.comfyui.prompts import Prompt

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDS = {
    "execution_success": "completed",
    "execution_error": "failed",
    "execution_interrupted": "cancelled",
}


@dataclass(frozen=True)
class JobQuery:
    """Selection and order of listed jobs."""

    statuses: tuple[str, ...] = STATUSES
    workflow_id: str | None = None
    sort_by: Literal["created_at", "execution_duration"] = "created_at"
    descending: bool = True
    limit: int | None = None
    offset: int = 0

    def page(self, jobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Select jobs, as in the reply."""
        found = [job for job in jobs if self._includes(job)]
        found.sort(key=self._key, reverse=self.descending)
        end = None if self.limit is None else self.offset + self.limit
        page = found[self.offset : end]
        return {
            "jobs": page,
            "pagination": {
                "offset": self.offset,
                "limit": self.limit,
                "total": len(found),
                "has_more": self.offset + len(page) < len(found),
            },
        }

    def _includes(self, job: Mapping[str, Any]) -> bool:
        wanted = self.workflow_id in (None, "", job.get("workflow_id"))
        return wanted and job["status"] in self.statuses

    def _key(self, job: Mapping[str, Any]) -> float:
        if self.sort_by == "created_at":
            return float(job["create_time"])
        start, end = job.get("execution_start_time"), job.get("execution_end_time")
        return float(end - start) if start and end else 0.0


def job_of(prompt: Prompt) -> dict[str, Any]:
    """Entry of a prompt in any state."""
    count, preview = _summary(prompt.results)
    times = {name: data["timestamp"] for name, data in prompt.messages}
    end = next((name for name in times if name in _ENDS), None)
    running = "in_progress" if prompt.runs else "pending"
    job = {
        "id": prompt.id,
        "status": running if end is None else _ENDS[end],
        "priority": prompt.number,
        "create_time": prompt.extra_data.get("create_time", 0),
        "execution_start_time": times.get("execution_start"),
        "execution_end_time": None if end is None else times[end],
        "execution_error": prompt.messages[-1][1] if end == "execution_error" else None,
        "workflow_id": _workflow_id(prompt.extra_data),
    }
    known = {name: value for name, value in job.items() if value is not None}
    return {**known, "outputs_count": count, "preview_output": preview}


def details_of(job: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of an ended prompt, with its results from the history."""
    _, _, graph, extra, _ = entry["prompt"]
    return {
        **job,
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": graph, "extra_data": extra},
    }


def _summary(results: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """Number of files, and the one to show: a saved one if there is any."""
    files = [
        {**file, "nodeId": node, "mediaType": kind}
        for node, result in results.items()
        for kind, listed in result.items()
        for file in listed
        if isinstance(file, dict)
    ]
    saved = (file for file in files if file["type"] == "output")
    return len(files), next(saved, files[0] if files else None)


def _workflow_id(extra: Mapping[str, Any]) -> str | None:
    found: Any = extra
    for name in ("extra_pnginfo", "workflow", "id"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None
