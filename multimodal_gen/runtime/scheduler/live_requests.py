"""Queued and running requests: their records, and what their clients are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec
import zmq

from multimodal_gen.errors import DeadlineExceeded, MultimodalGenError
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.plan import Ack, Phase, Work
from multimodal_gen.messages.reply import Failed, RequestProgress, WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.scheduler.adapter_cache import AdapterCache, AdapterVersion
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway
from multimodal_gen.runtime.scheduler.issued_plans import IssuedPlan
from multimodal_gen.runtime.scheduler.request_record import RequestRecord
from multimodal_gen.scheduling.policy import Policy

ArrayFrames = tuple[FrameHeader, list[zmq.Frame]]
"""An array as it came from a rank: it is only forwarded."""
PROGRESS_S = 0.1
"""Minimum time between two progress messages of one request."""


class LiveRequests:
    """Used by one thread at a time."""

    def __init__(
        self, gateway: ClientGateway, adapters: AdapterCache, on_drop: Callable[[], None]
    ) -> None:
        self.policy: Policy
        """Set once the model is loaded; before, there are no requests."""
        self._gateway = gateway
        self._adapters = adapters
        self._on_drop = on_drop
        self._records: dict[str, RequestRecord] = {}
        self._drops: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def submit(
        self,
        req: Req,
        pictures: Sequence[list[zmq.Frame]],
        adapters: tuple[AdapterVersion, ...],
    ) -> bool:
        """Queue a request; False if it is already there. Raises QueueFull, DeadlineExceeded."""
        now = time.monotonic()
        if not self.policy.submit(req, now, held=bool(adapters)):
            return False
        self._records[req.id] = RequestRecord(req, now, pictures)
        if adapters:
            self._adapters.wait(req.id, adapters)
        return True

    def records(self, request_ids: Sequence[str]) -> dict[str, RequestRecord]:
        return {request_id: self._records[request_id] for request_id in request_ids}

    def progress(self, request_id: str) -> RequestProgress | None:
        """Progress of a request; None if it has ended."""
        return self._progress(request_id) if request_id in self._records else None

    # -- ranks

    @property
    def has_drops(self) -> bool:
        return bool(self._drops)

    def take_drops(self) -> tuple[str, ...]:
        """Remove and return the ended requests that the ranks still know."""
        drops, self._drops = tuple(self._drops), []
        return drops

    def admissions(self, work: Work, now: float) -> tuple[tuple[Req, ...], list[list[zmq.Frame]]]:
        """Requests that are new to the ranks, and their images."""
        admitted: list[Req] = []
        pictures: list[list[zmq.Frame]] = []
        for request_id in work.ids:
            record = self._records[request_id]
            if not record.admitted:
                admitted.append(record.req)
                pictures += record.admit(now)
        return tuple(admitted), pictures

    # -- clients

    def report(self, work: Work, issued: IssuedPlan, acks: Sequence[Ack], now: float) -> None:
        """Tell the clients what the ranks have acknowledged."""
        # Of several ranks that report one, the first knows its cause best: it tells the others.
        # But it only sees NaN where they failed to decode a tile.
        best_last = acks if work.phase is Phase.DECODE else reversed(acks)
        failures = {key: failure for ack in best_last for key, failure in ack.failures.items()}
        arrays = zip(acks[0].frames, issued.bodies, strict=False)
        finished = _results(acks[0], arrays)
        previews = dict(zip(acks[0].previewed, arrays, strict=False))
        for request_id, record in issued.records.items():
            if self._records.get(request_id) is not record:
                continue
            if request_id in failures:
                self.end(request_id, failures[request_id].exception())
            elif request_id in finished:
                rate = acks[0].audio_rates.get(request_id)
                self._deliver(request_id, finished[request_id], rate, now)
            elif work.phase in (Phase.ENHANCE, Phase.DENOISE):
                self._tell(request_id, previews.get(request_id), len(work.ids), now)

    def _deliver(
        self, request_id: str, arrays: Sequence[ArrayFrames], audio_rate: int | None, now: float
    ) -> None:
        record = self._records[request_id]
        record.warnings += self._adapters.warnings(request_id)
        self._forget(request_id)
        headers = tuple(header for header, _ in arrays)
        bodies = [body for _, body in arrays]
        self._gateway.send(request_id, record.result(headers, audio_rate, now), bodies)

    def _tell(
        self, request_id: str, preview: ArrayFrames | None, batch_size: int, now: float
    ) -> None:
        """Tell a client what was done for a request, together with how many."""
        record = self._records[request_id]
        if preview is None and not record.denoised and now - record.reported_at < PROGRESS_S:
            return
        record.reported_at = now
        progress = msgspec.structs.replace(self._progress(request_id), batch_size=batch_size)
        if preview is None:
            self._gateway.send(request_id, progress)
        else:
            header, body = preview
            shown = msgspec.structs.replace(progress, frames=(header,))
            self._gateway.send(request_id, shown, [body])

    def _progress(self, request_id: str) -> RequestProgress:
        told = self.policy.progress(request_id, time.monotonic())
        return RequestProgress(id=request_id, **told._asdict())

    # -- ends

    def end(self, request_id: str, error: MultimodalGenError) -> None:
        """End a request with an error; no effect if it has already ended."""
        if request_id in self._records:
            self._forget(request_id)
            self._gateway.send(request_id, Failed(request_id, WireError.of(error)))

    def _forget(self, request_id: str) -> RequestRecord:
        record = self._records.pop(request_id)
        self.policy.remove(request_id)
        self._adapters.leave(request_id)
        if record.admitted:
            self._drops.append(request_id)
            self._on_drop()
        return record

    def end_expired(self) -> None:
        for request_id in self.policy.expired(time.monotonic()):
            deadline = self._records[request_id].req.params.deadline_s
            self.end(request_id, DeadlineExceeded(f"not finished within deadline_s={deadline:g}"))

    def end_all(self, error: MultimodalGenError) -> None:
        for request_id in list(self._records):
            self.end(request_id, error)


def _results(ack: Ack, arrays: Iterator[ArrayFrames]) -> dict[str, list[ArrayFrames]]:
    """Take the finished requests' pixels, each followed by its sound if it has some."""
    return {
        request_id: list(islice(arrays, 2 if request_id in ack.audio_rates else 1))
        for request_id in ack.finished
    }
