"""A video job in OpenAI's format."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.openai.job_objects import AudioInfo, times_of
from multimodal_gen.entrypoints.http.transport.errors import ErrorInfo, envelope
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.task import Task

_STATUS = {"cancelled": "failed"}
"""Statuses that OpenAI's clients don't know, and the ones sent instead."""
_POLLS = 10
_SOONEST_MS, _UNKNOWN_MS, _LATEST_MS = 200, 1000, 10_000


class Video(BaseModel):
    """OpenAI's Video, plus its parameters and the expected time."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    model: str
    status: str
    progress: int
    """Percent, 0 to 100."""
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
    """Number of requests ahead of it; None once it has ended."""
    eta_s: float | None
    """Estimated seconds left; None if unknown."""
    seed: int | None
    num_frames: int | None
    fps: int | None
    audio: AudioInfo | None
    """Of a completed video that has sound."""
    usage: dict[str, Any] | None
    """What a completed video cost: as in the reply of an image route."""


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
    """Build the Video of a job; `task` runs it, if it has not ended."""
    params = record.request.requests[0].params
    progress = None if task is None or record.done else task.progress
    video = {
        "id": record.id,
        "object": "video",
        "model": record.model,
        "status": _STATUS.get(record.status, record.status),
        "progress": record.progress,
        **times_of(record),
        "size": record.meta.get("size") or f"{params.width}x{params.height}",
        "seconds": record.meta.get("seconds") or _seconds(params),
        "prompt": params.prompt,
        "remixed_from_video_id": record.meta.get("remixed_from_video_id"),
        "error": None if record.error is None else envelope(record.error.exception()),
        "queue_position": None if progress is None else progress.queue_position,
        "eta_s": None if progress is None else progress.eta_s,
        "seed": params.seed,
        "num_frames": params.num_frames,
        "fps": params.fps,
        "audio": record.meta.get("audio"),
        "usage": record.meta.get("usage"),
    }
    if revised := record.revised_prompt(0):
        video["revised_prompt"] = revised
    if evaluations := record.evaluations(0):
        video["evaluations"] = evaluations
    if warnings := record.warnings:
        video["warnings"] = as_plain(warnings)
    return video


def poll_after_ms(eta_s: float | None) -> int:
    """Suggested polling interval. The openai package uses the first interval it gets until the end,
    so this is a fraction of the time left: the client notices the end at most that much later."""
    if eta_s is None:
        return _UNKNOWN_MS
    return max(_SOONEST_MS, min(_LATEST_MS, int(1000 * eta_s / _POLLS)))


def _seconds(params: SamplingParams) -> str:
    if not params.num_frames or not params.fps:
        return "0"
    return f"{round(params.num_frames / params.fps, 2):g}"
