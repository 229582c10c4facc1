"""Measurements of one evaluation: time, memory, operations, and waits of the host."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal_gen.benchmarks.device.clock import DeviceClock

Call = Callable[[], object]
_ATTENTION = re.compile(r"attention|attn")


class Instruments:
    """Measures calls on one device. On a CPU, where nothing is queued, there are no waits, and
    memory is not counted."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._clock = DeviceClock(device)
        self.wait = self._clock.wait

    def seconds(self, call: Call) -> tuple[float, float]:
        """Seconds until the call returned, and until the device had done its work."""
        self.wait()
        started = time.perf_counter()
        call()
        returned = time.perf_counter()
        self.wait()
        return returned - started, time.perf_counter() - started

    def peak_bytes(self, call: Call) -> int:
        """Most bytes allocated at once meanwhile, weights included; 0 on a CPU."""
        if not self._clock.on_gpu:
            call()
            return 0
        torch.cuda.reset_peak_memory_stats(self._device)
        call()
        self.wait()
        return torch.cuda.max_memory_allocated(self._device)

    def waits(self, call: Call) -> Counter[str]:
        """Operations for which the host waited for the device, by file and line."""
        if not self._clock.on_gpu:
            call()
            return Counter()
        self.wait()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        synchronizing = (each for each in told if "synchroniz" in str(each.message))
        return Counter(f"{each.filename}:{each.lineno}" for each in synchronizing)

    def attention_seconds(self, call: Call) -> float:
        """Seconds that the device spends in attention."""
        with _TimedAttention(self._clock) as timed:
            call()
        self.wait()
        return sum(self._clock.between(*span) for span in timed.spans)


class _TimedAttention(TorchDispatchMode):
    """Marks the start and end of each kernel of attention, whichever backend calls it."""

    def __init__(self, clock: DeviceClock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self.spans: list[tuple[Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not _ATTENTION.search(str(func)):
            return func(*args, **(kwargs or {}))
        start = self._clock.mark()
        attended = func(*args, **(kwargs or {}))
        self.spans.append((start, self._clock.mark()))
        return attended


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_operations() -> Iterator[_Operations]:
    """Count operations that are not views."""
    with _Operations() as operations:
        yield operations
