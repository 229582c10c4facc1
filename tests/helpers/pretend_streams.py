"""Streams of the device that only pretends: what they do is done at once, but must be in order.

Work of one stream knows of another's only by events that it waits for. What uses memory that it
does not know to be ready, or free, is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.backend_registration import _DummyBackendModule

Ticks = dict[int, int]
"""By number of a stream: how much of its work is known to be done."""


class Streams:
    """The streams of one device, and which memory each of them used last."""

    def __init__(self) -> None:
        self._all: list[PretendStream] = [PretendStream(0)]
        self.current = self._all[0]
        self._written: dict[int, tuple[int, int]] = {}
        self._used: defaultdict[int, Ticks] = defaultdict(dict)

    def make(self) -> PretendStream:
        self._all.append(PretendStream(len(self._all)))
        return self._all[-1]

    def check(
        self, operation: Any, args: Sequence[Any], storage: Callable[[Any], int | None]
    ) -> None:
        """Raise where the current stream uses memory too early, and note its use."""
        if len(self._all) == 1:
            return
        stream = self.current
        stream.known[stream.number] = stream.tick = stream.tick + 1
        for argument, given in zip(operation._schema.arguments, args, strict=False):
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for each in given if isinstance(given, list | tuple) else [given]:
                if (key := storage(each)) is not None:
                    self._check(str(operation), key, writes=writes)

    def forget(self, key: int) -> None:
        """The memory was freed."""
        self._written.pop(key, None)
        self._used.pop(key, None)

    def _check(self, operation: str, key: int, *, writes: bool) -> None:
        stream = self.current
        by, tick = self._written.get(key, (stream.number, 0))
        if stream.known.get(by, 0) < tick:
            raise RuntimeError(f"{operation} uses memory before stream {by} has written it")
        if writes:
            for other, used in self._used[key].items():
                if stream.known.get(other, 0) < used:
                    raise RuntimeError(f"{operation} writes memory that stream {other} still uses")
            self._written[key] = stream.number, stream.tick
        self._used[key][stream.number] = stream.tick


class PretendStream:
    def __init__(self, number: int) -> None:
        self.number = number
        self.tick = 0
        self.known: Ticks = {}

    def wait_event(self, event: PretendEvent) -> None:
        for stream, tick in event.known.items():
            self.known[stream] = max(tick, self.known.get(stream, 0))


class PretendEvent:
    def __init__(self) -> None:
        self.known: Ticks = {}

    def record(self, stream: PretendStream) -> None:
        self.known = dict(stream.known)


class Backend(_DummyBackendModule):
    """What torch.cuda is to a GPU."""

    Event = PretendEvent

    def __init__(self, streams: Callable[[], Streams]) -> None:
        super().__init__()
        self._streams = streams

    def Stream(self) -> PretendStream:
        return self._streams().make()

    def current_stream(self) -> PretendStream:
        return self._streams().current

    @contextmanager
    def stream(self, stream: PretendStream) -> Iterator[None]:
        streams = self._streams()
        before, streams.current = streams.current, stream
        try:
            yield
        finally:
            streams.current = before
