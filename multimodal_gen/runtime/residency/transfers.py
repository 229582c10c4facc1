"""Copies of weights to a device, beside its work where it has streams."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.residency.bundle import Copy

log = logging.getLogger(__name__)
_STAGED_BYTES = 32 << 20
"""Size of each of two pinned buffers: large enough for the link's full speed."""


class Arrival:
    """Copies that were started."""

    def wait(self) -> None:
        """Let the device's later work wait for them; the host goes on."""


class Transfers(ABC):
    """Starts copies. They are made after all work that the device has got so far, since their
    targets may have been in use by it."""

    @abstractmethod
    def start(self, copies: Sequence[Copy]) -> Arrival: ...


def transfers_to(device: torch.device) -> Transfers:
    """Choose what suits the device."""
    backend = torch.get_device_module(device)
    if not hasattr(backend, "Event"):
        return OrderedTransfers()
    if device.type == "cuda":
        return StagedTransfers(backend, _STAGED_BYTES)
    return StreamTransfers(backend)


class OrderedTransfers(Transfers):
    """For a device that does everything in order."""

    def start(self, copies: Sequence[Copy]) -> Arrival:
        _copy(copies)
        return Arrival()


class StreamTransfers(Transfers):
    """Copies on a stream of their own."""

    def __init__(self, backend: Any) -> None:
        """`backend` is the device's module, such as torch.cuda."""
        self._backend = backend
        self._stream = backend.Stream()

    def start(self, copies: Sequence[Copy]) -> Arrival:
        arrival = _StreamArrival(self._backend)
        self._enqueue(copies, arrival)
        return arrival

    def _enqueue(self, copies: Sequence[Copy], arrival: _StreamArrival) -> None:
        with self._backend.stream(self._stream):
            self._stream.wait_event(arrival.earlier)
            _copy(copies)
            arrival.arrived.record(self._stream)
        arrival.queued.set()


class _StreamArrival(Arrival):
    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.earlier = backend.Event()
        """Recorded when all work so far is done."""
        self.earlier.record(backend.current_stream())
        self.arrived = backend.Event()
        self.queued = threading.Event()
        """Set when `arrived` can be waited for."""
        self.error: BaseException | None = None

    def wait(self) -> None:
        self.queued.wait()
        if self.error is not None:
            raise self.error
        self._backend.current_stream().wait_event(self.arrived)


class StagedTransfers(StreamTransfers):
    """Copies by way of pinned memory: from pageable memory, the driver would make the host wait.

    A thread fills one of two buffers while the device reads the other.
    """

    def __init__(self, backend: Any, staged: int) -> None:
        """`staged`: bytes of each buffer."""
        super().__init__(backend)
        self._staging = _Staging(backend, staged)
        self._device = backend.current_device()
        self._orders: SimpleQueue[tuple[Sequence[Copy], _StreamArrival]] = SimpleQueue()
        threading.Thread(target=self._serve, name="weights", daemon=True).start()

    def _enqueue(self, copies: Sequence[Copy], arrival: _StreamArrival) -> None:
        self._orders.put((copies, arrival))

    @torch.inference_mode()
    def _serve(self) -> None:
        self._backend.set_device(self._device)
        while True:
            copies, arrival = self._orders.get()
            try:
                with self._backend.stream(self._stream):
                    self._stream.wait_event(arrival.earlier)
                    for target, source in copies:
                        self._staging.copy(target, source, self._stream)
                    arrival.arrived.record(self._stream)
            except Exception as error:
                arrival.error = error
            arrival.queued.set()


class _Staging:
    """Two pinned buffers of exactly the given size, used in turn."""

    def __init__(self, backend: Any, size: int) -> None:
        self._buffers = [_pinned(backend, size) for _ in range(2)]
        self._read = [backend.Event() for _ in range(2)]
        """Recorded when the device has read the buffer."""
        self._next = 0

    def copy(self, target: Tensor, source: Tensor, stream: Any) -> None:
        """Copy flat tensors, a buffer at a time."""
        count = len(self._buffers[0]) // source.element_size()
        for start in range(0, len(source), count):
            piece = source[start : start + count]
            buffer = self._buffers[self._next][: len(piece) * source.element_size()]
            self._read[self._next].synchronize()
            staged = buffer.view(source.dtype)
            staged.copy_(piece)
            target[start : start + count].copy_(staged, non_blocking=True)
            self._read[self._next].record(stream)
            self._next = 1 - self._next


def _pinned(backend: Any, size: int) -> Tensor:
    """Pin ordinary memory: torch's own pinned memory is rounded up to a power of two."""
    memory = torch.empty(size, dtype=torch.uint8)
    if failure := int(backend.cudart().cudaHostRegister(memory.data_ptr(), size, 0)):
        log.warning("%d bytes can't be pinned (CUDA error %d): copies are slower", size, failure)
    return memory


def _copy(copies: Sequence[Copy]) -> None:
    for target, source in copies:
        target.copy_(source, non_blocking=True)
