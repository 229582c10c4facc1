"""The Scheduler's record of a queued or running request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq

from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.plan import Ack, Phase, Work
from multimodal_gen.messages.reply import Evaluations, Result, Usage
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning


@dataclass
class RequestRecord:
    """A request, and the statistics of its work for its result."""

    req: Req
    accepted: float
    pictures: Sequence[list[zmq.Frame]] = ()
    """Kept until sent to the ranks."""
    admitted: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    evaluations: int = 0
    counted: Evaluations | None = None
    warnings: list[RequestWarning] = field(default_factory=list)
    usage: Usage | None = None
    revised_prompt: str | None = None
    prompt_notes: tuple[str, ...] = ()
    reported_at: float = 0.0
    """Time of the last progress message to its client."""

    def admit(self, now: float) -> Sequence[list[zmq.Frame]]:
        """Mark it as known to the ranks; returns the images to send along."""
        self.admitted = True
        self.timings["queued"] = now - self.accepted
        pictures, self.pictures = self.pictures, ()
        return pictures

    def book(self, work: Work, ack: Ack, seconds: float) -> None:
        """Add work that included it, as acknowledged by rank 0, and its duration in seconds."""
        if (prepared := ack.prepared.get(self.req.id)) is not None:
            self.evaluations = prepared.evaluations
            self.counted = Evaluations(prepared.computed, prepared.extrapolated)
            self.usage = prepared.usage
            self.warnings += prepared.warnings
            self.prompt_notes = prepared.prompt_notes
        self.revised_prompt = ack.enhanced.get(self.req.id, self.revised_prompt)
        spent = self.timings.get(work.phase.value, 0.0)
        self.timings[work.phase.value] = spent + seconds
        if work.phase is Phase.DENOISE:
            self.batch_sizes += [len(work.ids)] * ack.advanced

    @property
    def denoised(self) -> bool:
        """True once all its evaluations are done."""
        return len(self.batch_sizes) == self.evaluations > 0

    def result(self, frames: tuple[FrameHeader, ...], audio_rate: int | None, now: float) -> Result:
        """Final message; `frames` describes the arrays that go with it."""
        params = self.req.params
        assert params.seed is not None
        self.timings["total"] = now - self.accepted
        return Result(
            id=self.req.id,
            seed=params.seed,
            fps=params.fps,
            timings=self.timings,
            batch_sizes=self.batch_sizes,
            evaluations=self.counted,
            usage=self.usage,
            warnings=tuple(dict.fromkeys(self.warnings)),
            revised_prompt=self.revised_prompt,
            prompt_notes=self.prompt_notes,
            audio_rate=audio_rate,
            frames=frames,
        )
