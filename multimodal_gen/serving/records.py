"""Stored data of a job."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from multimodal_gen.client.request_handle import Output, warnings_of
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning, as_plain, from_plain
from multimodal_gen.postprocess.sound import Sound
from multimodal_gen.serving.task import Status
from multimodal_gen.serving.usage import RequestUsage

JobKind = Literal["video", "image"]
PageOrder = Literal["asc", "desc"]


@dataclass(frozen=True, kw_only=True)
class JobSearch:
    """Jobs that a client wants to see. Times are seconds since 1970."""

    words: str = ""
    """All of them are in its prompt, in any order and case."""
    model: str | None = None
    starred: bool = False
    """Jobs with a starred output only."""
    since: float | None = None
    before: float | None = None


EVERYTHING = JobSearch()

FINAL: tuple[Status, ...] = ("completed", "failed", "cancelled")


class JobRequest(msgspec.Struct, frozen=True):
    """Request of a job: the engine's part without pixels, and the protocol's."""

    requests: list[Req]
    meta: dict[str, Any] = {}

    def answered(self, outputs: Sequence[Output]) -> JobRequest:
        """Add what clients are told of its results: their size, cost, warnings, evaluations, how
        its prompt was read and revised, and the form of the sound."""
        meta = dict(self.meta)
        height, width = outputs[0].pixels.shape[1:3]  # larger than asked for if it was upscaled
        meta["size"] = f"{width}x{height}"
        meta["usage"] = RequestUsage.of(self.requests, outputs).described()
        if warnings := warnings_of(outputs):
            meta["warnings"] = as_plain([*from_plain(self.meta.get("warnings", ())), *warnings])
        if any(output.revised_prompt is not None for output in outputs):
            meta["revised_prompts"] = [output.revised_prompt for output in outputs]
        if any(output.evaluations is not None for output in outputs):
            meta["evaluations"] = [msgspec.to_builtins(output.evaluations) for output in outputs]
        if notes := outputs[0].prompt_notes:
            meta["prompt_notes"] = notes
        if (sound := Sound.of(outputs[0])) is not None:
            meta["audio"] = sound.described()
        return JobRequest(self.requests, meta)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One accepted job. Times are seconds since 1970."""

    id: str
    kind: JobKind
    owner: str
    model: str
    request: JobRequest
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    """Time at which its files are or were deleted; None if they are kept until that is asked for
    or space is needed."""
    status: Status = "queued"
    progress: int = 0
    """Percent, 0 to 100."""
    error: WireError | None = None
    files: tuple[str, ...] = ()
    """Names of its result files, those of deleted outputs left out."""
    starred: tuple[int, ...] = ()
    """Indices of outputs that its owner starred."""

    @property
    def meta(self) -> dict[str, Any]:
        return self.request.meta

    @property
    def warnings(self) -> list[RequestWarning]:
        """Those known so far: all of them once it is completed."""
        return from_plain(self.meta.get("warnings", ()))

    def revised_prompt(self, index: int) -> str | None:
        """The prompt of output `index`, if it is made and its prompt was enhanced."""
        revised: list[str | None] = self.meta.get("revised_prompts") or []
        return revised[index] if index < len(revised) else None

    def evaluations(self, index: int) -> dict[str, int] | None:
        """Numbers of evaluations of output `index`, once it is made; see `Evaluations`."""
        numbers: list[dict[str, int] | None] = self.meta.get("evaluations") or []
        return numbers[index] if index < len(numbers) else None

    def files_of(self, index: int) -> tuple[str, ...]:
        """Names of the files of output `index`: the result, then what else there is of it."""
        return tuple(name for name in self.files if name.startswith(f"{self.id}-{index}."))

    def has(self, index: int) -> bool:
        """Return False for an output that there never was, or that was deleted."""
        if not 0 <= index < len(self.request.requests):
            return False
        return self.status != "completed" or bool(self.files_of(index))

    @property
    def done(self) -> bool:
        return self.status in FINAL

    def updated(self, **fields: Any) -> JobRecord:
        return dataclasses.replace(self, **fields)
