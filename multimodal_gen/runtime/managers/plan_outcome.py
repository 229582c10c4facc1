"""Outcome of a plan on one rank, and the time that it took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import torch

from multimodal_gen.errors import not_finite
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.plan import Ack, Phase, Plan
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.managers.rank_device import memory_of
from multimodal_gen.runtime.stages.request_state import RequestState


class PlanOutcome:
    """Result of a plan on this rank; the device may still be working on it.

    What the host reads of it is copied by the device itself, ahead of the event that ends the plan:
    a copy made later would wait for the next plan.
    """

    def __init__(self, plan: Plan, rank: int, device: torch.device) -> None:
        self.plan = plan
        self.rank = rank
        self.fields: dict[str, Any] = {}
        self._device = device
        self._arrays: list[list[torch.Tensor]] = []
        self._places: list[tuple[str, str, int]] = []
        self._magnitudes: torch.Tensor | None = None
        self._clock = _CudaClock(device) if device.type == "cuda" else _HostClock()

    def give(self, arrays: Iterable[Sequence[torch.Tensor]]) -> None:
        """Send these along with the acknowledgement, each joined of parts: on the host, since the
        device may lack memory for it."""
        for parts in arrays:
            self._arrays.append([part.to("cpu", non_blocking=True) for part in parts])

    def check(self, states: Sequence[RequestState]) -> None:
        """Fail the requests whose numbers became NaN or infinite."""
        noted = [(state.req.id, note) for state in states for note in state.magnitudes]
        for state in states:
            state.magnitudes = []
        if not noted:
            return
        starts: dict[int, int] = {}
        several: list[torch.Tensor] = []
        end = 0
        for _, note in noted:  # requests of one evaluation share a tensor
            if id(note.values) not in starts:
                starts[id(note.values)] = end
                end += note.values.shape[0]
                several.append(note.values)
        self._places = [(own, note.place, starts[id(note.values)] + note.at) for own, note in noted]
        self._magnitudes = _joined(several).to("cpu", non_blocking=True)

    def queued(self) -> None:
        """Mark that everything is queued: on a GPU the end is an event, on a CPU it is now."""
        self._clock.stop()

    def ack(self) -> tuple[Ack, list[Any]]:
        """Wait for the device; returns the acknowledgement and its arrays."""
        seconds = self._clock.seconds()
        arrays = [_joined(parts).numpy() for parts in self._arrays]
        failures = self._not_finite() | self.fields.pop("failures", {})
        evaluates = self.plan.work is not None and self.plan.work.phase is Phase.DENOISE
        ack = Ack(
            number=self.plan.number,
            rank=self.rank,
            seconds=seconds,
            frames=tuple(header_of(array) for array in arrays),
            failures=failures,
            memory=None if evaluates else memory_of(self.rank, self._device),
            **self.fields,
        )
        return ack, arrays

    def _not_finite(self) -> dict[str, WireError]:
        """The first place of each request that has no finite magnitude."""
        if self._magnitudes is None:
            return {}
        found: dict[str, WireError] = {}
        values: list[float] = self._magnitudes.tolist()
        if all(map(isfinite, values)):
            return {}
        for request_id, place, at in self._places:
            if not isfinite(values[at]):
                found.setdefault(request_id, WireError.of(not_finite(place)))
        return found


class _HostClock:
    """Times work that is finished when its call returns."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stopped = self._started

    def stop(self) -> None:
        self._stopped = time.perf_counter()

    def seconds(self) -> float:
        return self._stopped - self._started


class _CudaClock:
    """Times work on the GPU's own stream, which may still be busy with the previous plan."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Blocking: a wait must not spin, as that takes a core from every rank.
        self._started = torch.cuda.Event(enable_timing=True, blocking=True)
        self._stopped = torch.cuda.Event(enable_timing=True, blocking=True)
        self._started.record()

    def stop(self) -> None:
        self._stopped.record()

    def seconds(self) -> float:
        # Another thread than the worker's: without this it would use the memory of device 0.
        torch.cuda.set_device(self._device)
        self._stopped.synchronize()
        return float(self._started.elapsed_time(self._stopped)) / 1000


def _joined(chunks: Sequence[torch.Tensor]) -> torch.Tensor:
    return chunks[0] if len(chunks) == 1 else torch.cat([*chunks])
