"""A video job as OpenAI's clients see it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.openai.job_objects import times_of
from multimodal_gen.entrypoints.http.transport.errors import ErrorInfo, envelope
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.task import Task

_STATUS = {"cancelled": "failed"}
"""Clients wait for a status that they know."""
_POLLS = 10
_SOONEST_MS, _UNKNOWN_MS, _LATEST_MS = 200, 1000, 10_000


class Video(BaseModel):
    """OpenAI's Video, and beside it how it is made and when it will be done."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    model: str
    status: str
    progress: int
    """Per cent."""
    created_at: int
    completed_at: int | None
    expires_at: int | None
    size: str
    seconds: str
    prompt: str
    remixed_from_video_id: str | None
    error: ErrorInfo | None
    started_at: int | None
    queue_position: int | None
    """Requests ahead of it; None once it has ended."""
    eta_s: float | None
    """Seconds until it will be done, as far as that is known."""
    seed: int | None
    num_frames: int | None
    fps: int | None


class VideoPage(BaseModel):
    object: str
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(BaseModel):
    id: str
    object: str
    deleted: bool


def video_of(record: JobRecord, task: Task | None) -> dict[str, Any]:
    """The Video of a job; `task` makes it, if it has not ended."""
    params = record.request.requests[0].params
    progress = None if task is None or record.done else task.progress
    video = {
        "id": record.id,
        "object": "video",
        "model": record.model,
        "status": _STATUS.get(record.status, record.status),
        "progress": record.progress,
        **times_of(record),
        "size": f"{params.width}x{params.height}",
        "seconds": record.meta.get("seconds") or _seconds(params),
        "prompt": params.prompt,
        "remixed_from_video_id": record.meta.get("remixed_from_video_id"),
        "error": None if record.error is None else envelope(record.error.exception()),
        "queue_position": None if progress is None else progress.queue_position,
        "eta_s": None if progress is None else progress.eta_s,
        "seed": params.seed,
        "num_frames": params.num_frames,
        "fps": params.fps,
    }
    if warnings := record.meta.get("warnings"):
        video["warnings"] = warnings
    return video


def poll_after_ms(eta_s: float | None) -> int:
    """When to ask again. The openai package asks at the first interval it is told until the end,
    so this is a part of what is left: it learns of the end late by no more than that."""
    if eta_s is None:
        return _UNKNOWN_MS
    return max(_SOONEST_MS, min(_LATEST_MS, int(1000 * eta_s / _POLLS)))


def _seconds(params: SamplingParams) -> str:
    if not params.num_frames or not params.fps:
        return "0"
    return f"{round(params.num_frames / params.fps, 2):g}"
