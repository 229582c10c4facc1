"""An event loop on its own thread, so that blocking calls work anywhere, even inside a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import Any, TypeVar

from multimodal_gen.client.own_process import OwnProcess
from multimodal_gen.errors import EngineNotReady

MEANWHILE_S = 0.1
CLOSED = "the generator was closed"

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for threads that block on them."""

    def __init__(self, name: str) -> None:
        self._process = OwnProcess()
        self._started = threading.Event()
        self._streams: set[AsyncGenerator[Any, None]] = set()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name=name, daemon=True
        )
        self._thread.start()
        self._started.wait()

    def run(
        self, coroutine: Coroutine[Any, Any, T], meanwhile: Callable[[], None] | None = None
    ) -> T:
        """Wait for a coroutine, and call `meanwhile` from time to time; an interruption of the wait
        (Ctrl-C) cancels it."""
        future = self.start(coroutine)
        try:
            while meanwhile is not None and not wait([future], MEANWHILE_S).done:
                meanwhile()
            return future.result()
        except CancelledError:
            raise EngineNotReady(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine without waiting for it. Raises EngineNotReady after `close`, and in a
        forked process."""
        try:
            self._process.check()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise EngineNotReady(CLOSED) from None
        except EngineNotReady:
            coroutine.close()
            raise

    def hold(self, stream: AsyncGenerator[Any, None]) -> None:
        """Close a stream with the loop, unless it is dropped before. Left to asyncio, which closes
        all generators at once, it would find those inside of it closing already, and say so."""
        self._streams.add(stream)

    def drop(self, stream: AsyncGenerator[Any, None]) -> None:
        """Leave a stream to its holder."""
        self._streams.discard(stream)

    def close(self) -> None:
        """Stop the loop once its work has ended."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._started.set()
        await self._closing.wait()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*running, return_exceptions=True)
        for stream in tuple(self._streams):
            with suppress(EngineNotReady):
                await stream.aclose()
