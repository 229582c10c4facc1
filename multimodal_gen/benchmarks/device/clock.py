"""Measures time on a device."""

from __future__ import annotations

import time
from typing import Any

import torch


class DeviceClock:
    """Marks moments: on a GPU by events in its stream, so that a span is the device's own time; on
    a CPU by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.on_gpu = device.type == "cuda"

    def mark(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two marks. On a GPU, `wait` must have been called since."""
        seconds: float = start.elapsed_time(end) / 1000 if self.on_gpu else end - start
        return seconds

    def wait(self) -> None:
        """Wait until the device has done everything that is queued."""
        if self.on_gpu:
            torch.cuda.synchronize(self._device)
