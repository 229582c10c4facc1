"""What rank 0 keeps of a request while it is alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.plan import Ack, Phase, Work
from multimodal_gen.messages.reply import Result
from multimodal_gen.messages.request import Req


@dataclass
class RequestRecord:
    """A request, and the account of its work that its result will give."""

    req: Req
    accepted: float
    pictures: Sequence[Any] = ()
    """Until they are on their way to the ranks."""
    admitted: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    evaluations: int = 0
    reported_at: float = 0.0
    """When its client last got its progress."""

    def admit(self, now: float) -> Sequence[Any]:
        """Count it as known to the ranks; return the pictures to send along."""
        self.admitted = True
        self.timings["queued"] = now - self.accepted
        pictures, self.pictures = self.pictures, ()
        return pictures

    def book(self, work: Work, ack: Ack, seconds: float) -> None:
        """Add work that it had a part in, as rank 0 acknowledged it, and how long that took."""
        if (prepared := ack.prepared.get(self.req.id)) is not None:
            self.evaluations = prepared.evaluations
        spent = self.timings.get(work.phase.value, 0.0)
        self.timings[work.phase.value] = spent + seconds
        if work.phase is Phase.DENOISE:
            self.batch_sizes += [len(work.ids)] * ack.advanced

    @property
    def denoised(self) -> bool:
        """Whether all its evaluations are done."""
        return len(self.batch_sizes) == self.evaluations

    def result(self, pixels: Any, now: float) -> Result:
        """The message that ends it; `pixels` [F, H, W, 3] uint8 go along as its frame."""
        params = self.req.params
        assert params.seed is not None
        self.timings["total"] = now - self.accepted
        return Result(
            id=self.req.id,
            seed=params.seed,
            fps=params.fps,
            timings=self.timings,
            batch_sizes=self.batch_sizes,
            frames=(header_of(pixels),),
        )
