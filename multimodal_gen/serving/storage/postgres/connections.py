"""Connections to PostgreSQL that many threads share and that are opened again when they break."""

from __future__ import annotations

import contextlib
import logging
import select
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import dict_row

from multimodal_gen.serving.storage.failures import LOCKED_RETRY_S, full, unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
Row = dict[str, Any]
ANSWER_S = 5.0
"""Longest time for a statement; after it the connection counts as broken."""
_KEPT = 4
"""Number of idle connections that are kept."""
_OPTIONS = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
    "application_name": "multimodal-gen",
}


class Connection(psycopg.Connection[Row]):
    """A connection whose waits end, also where the server neither answers nor closes it."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, ANSWER_S if timeout is None else timeout)


class Connections:
    """Opens connections to one database, and keeps a few idle ones."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commit everything inside, or nothing. Raises StorageUnavailable and StorageFull; after
        the former it may have been committed all the same."""
        with self.one() as db, db.transaction():
            yield db

    @contextlib.contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection, on which each statement commits. Raises like `transaction`."""
        with storing_in_postgres():
            db = self._take()
            try:
                yield db
            except psycopg.Error:
                if isinstance(db, Connection) and db.pgconn.transaction_status != 0:
                    db.close()
                raise
            finally:
                self._give_back(db)

    def open(self) -> Connection:
        """Open a connection that is the caller's to close. Raises psycopg.Error."""
        return Connection.connect(self._url, autocommit=True, row_factory=dict_row, **_OPTIONS)  # type: ignore[arg-type]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _take(self) -> Connection:
        while True:
            with self._lock:
                db = self._idle.pop() if self._idle else None
            if db is None:
                return self.open()
            if not _is_stale(db):
                return db
            db.close()

    def _give_back(self, db: Connection) -> None:
        with self._lock:
            if not db.closed and not self._closed and len(self._idle) < _KEPT:
                self._idle.append(db)
                return
        db.close()


def _is_stale(db: Connection) -> bool:
    """True if the server closed an idle connection: nothing else makes it readable."""
    if db.closed:
        return True
    poll = select.poll()
    poll.register(db.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


@contextlib.contextmanager
def storing_in_postgres() -> Iterator[None]:
    """Raises StorageFull and StorageUnavailable in place of errors that pass."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise full("the database's disk is full") from error
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,  # a standby that is not the primary yet
    ) as error:
        log.debug("PostgreSQL: %s", error)
        raise unavailable("its database can't be reached", LOCKED_RETRY_S) from error
