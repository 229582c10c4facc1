"""The thread that renews a front's leases and hears the news of other fronts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import psycopg

from multimodal_gen.serving.fronts.news import AnyNews, CancelAsked, parse
from multimodal_gen.serving.storage.postgres.connections import Connection
from multimodal_gen.serving.storage.postgres.ledger import LEASE_S, PostgresLedger, Renewed

log = logging.getLogger(__name__)
BEAT_S = 0.5
"""Interval of renewals, and of looking for jobs whose front is gone."""


class HeartbeatListener(Protocol):
    """Called on the event loop."""

    def connected(self) -> None:
        """Messages are heard from now on; earlier ones may be lost."""

    def renewed(self, now: Renewed, trusted: bool) -> None:
        """Leases were renewed. `trusted`: for as long as a lease lasts, so that fronts whose leases
        have ended had the chance to renew them."""

    def heard(self, news: AnyNews) -> None: ...

    def disconnected(self, reason: str) -> None: ...


class Heartbeat:
    """Beats in a thread with a connection of its own, so that no work delays it."""

    def __init__(self, ledger: PostgresLedger, listener: HeartbeatListener) -> None:
        self._ledger = ledger
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._ledger.listening() as db:
                    self._pass(self._listener.connected)
                    self._beat(db)
            except psycopg.Error as error:
                reason = " ".join(str(error).split())
                self._pass(lambda reason=reason: self._listener.disconnected(reason))  # type: ignore[misc]
                self._stop.wait(BEAT_S)

    def _beat(self, db: Connection) -> None:
        since = time.monotonic()
        while not self._stop.is_set():
            now = self._ledger.renew(db)
            trusted = time.monotonic() - since >= LEASE_S
            self._pass(lambda now=now, trusted=trusted: self._listener.renewed(now, trusted))  # type: ignore[misc]
            self._listen(db, set(now.held))

    def _listen(self, db: Connection, held: set[str]) -> None:
        """Pass on news until the next renewal; a wish to cancel one of its jobs is looked up at
        once."""
        with contextlib.closing(db.notifies(timeout=BEAT_S)) as arriving:
            for notify in arriving:
                if (news := parse(notify.payload)) is None:
                    log.debug("a message of another version is ignored")
                    continue
                self._pass(lambda news=news: self._listener.heard(news))  # type: ignore[misc]
                if isinstance(news, CancelAsked) and news.job in held:
                    return

    def _pass(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(call)
