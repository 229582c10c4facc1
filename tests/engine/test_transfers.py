"""Copies of weights by way of two pinned buffers, on a device whose memory is the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from multimodal_gen.runtime.residency.transfers import OrderedTransfers, StagedTransfers


class FakeStream:
    def __init__(self) -> None:
        self.waited: list[FakeEvent] = []

    def wait_event(self, event: FakeEvent) -> None:
        self.waited.append(event)


class FakeEvent:
    recorded: FakeStream | None = None
    synchronized = 0

    def record(self, stream: FakeStream) -> None:
        self.recorded = stream

    def synchronize(self) -> None:
        self.synchronized += 1


class FakeCuda:
    """torch.cuda, as far as copies use it."""

    Stream = FakeStream
    Event = FakeEvent

    def __init__(self, failure: int = 0) -> None:
        self.main = FakeStream()
        self.registered: list[int] = []
        self._failure = failure

    def current_stream(self) -> FakeStream:
        return self.main

    def current_device(self) -> int:
        return 0

    def set_device(self, device: int) -> None: ...

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        yield

    def cudart(self) -> Any:
        return SimpleNamespace(cudaHostRegister=self._register)

    def _register(self, address: int, size: int, flags: int) -> int:
        self.registered.append(size)
        return self._failure


def copies(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    sources = [torch.arange(size, dtype=torch.float32) for size in sizes]
    return [(torch.zeros_like(source), source) for source in sources]


@pytest.mark.parametrize("failure", [0, 2])
def test_weights_larger_than_the_buffers_arrive_whole(failure: int) -> None:
    cuda = FakeCuda(failure)
    wanted = copies(7, 1000, 256, 1)
    StagedTransfers(cuda, 1024).start(wanted).wait()
    for target, source in wanted:
        assert torch.equal(target, source)


def test_no_more_is_pinned_than_two_buffers_of_exactly_their_size() -> None:
    cuda = FakeCuda()
    transfers = StagedTransfers(cuda, 1000)
    for _ in range(3):
        transfers.start(copies(5000)).wait()
    assert cuda.registered == [1000, 1000]


def test_copies_wait_for_earlier_work_and_later_work_for_them() -> None:
    cuda = FakeCuda()
    arrival = StagedTransfers(cuda, 1024).start(copies(10))
    assert arrival.earlier.recorded is cuda.main
    arrival.wait()
    assert cuda.main.waited == [arrival.arrived]
    copying = arrival.arrived.recorded
    assert copying is not cuda.main
    assert copying.waited == [arrival.earlier]


def test_an_error_in_the_copying_thread_is_raised_where_the_weights_are_awaited() -> None:
    transfers = StagedTransfers(FakeCuda(), 1024)
    with pytest.raises(RuntimeError, match="size of tensor"):
        transfers.start([(torch.zeros(3), torch.ones(4))]).wait()
    transfers.start(wanted := copies(4)).wait()
    assert torch.equal(*wanted[0])


def test_a_device_without_streams_copies_in_order() -> None:
    wanted = copies(12)
    OrderedTransfers().start(wanted).wait()
    assert torch.equal(*wanted[0])
