"""A ledger in one SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_gen.errors import InvalidRequest, NotFound
from multimodal_gen.serving.records import (
    EVERYTHING,
    FINAL,
    JobKind,
    JobRecord,
    JobSearch,
    PageOrder,
)
from multimodal_gen.serving.storage.failures import storing
from multimodal_gen.serving.storage.ledger import (
    IdempotencyKey,
    Notice,
    Page,
    StoredFiles,
    same_request,
)
from multimodal_gen.serving.storage.rows import (
    packed,
    record_of,
    row_of,
    starred_in,
    stored_files_of,
    tests_of,
    words_in,
)

VERSION = 1
_SCHEMA = f"""
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    request BLOB NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    expires_at REAL,
    status TEXT NOT NULL,
    progress INTEGER NOT NULL,
    error BLOB,
    files BLOB NOT NULL
);
CREATE INDEX jobs_of_owner ON jobs (owner, kind, number);
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (owner, key)
);
PRAGMA user_version = {VERSION};
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS notices (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    tries INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (completed_at);
CREATE INDEX IF NOT EXISTS jobs_of_owner_in_order ON jobs (owner, number);
"""
"""Added later: a file of this version may lack it."""
_NEW_COLUMNS = {"starred": "BLOB NOT NULL DEFAULT x'90'", "words": "TEXT"}
"""Also added later. x'90' is an empty list in msgpack."""
_INDEXES = "CREATE INDEX IF NOT EXISTS jobs_starred ON jobs (number) WHERE starred <> x'90';"
_OPENING_S = 5.0
"""Time for another program to let go of the file when it is opened; later, nothing waits."""


class SqliteLedger:
    """A Ledger in one SQLite file, which one server uses at a time."""

    add_is_certain = True

    def __init__(self, path: Path) -> None:
        """Raises InvalidRequest for a file that can't be used."""
        # One connection writes, the other reads: a reader never waits for a writer.
        self._writing_lock, self._reading_lock = threading.Lock(), threading.Lock()
        with contextlib.ExitStack() as opened:
            try:
                path.touch(mode=0o600)
                self._db = opened.enter_context(contextlib.closing(_connected(path)))
                self._reader = opened.enter_context(contextlib.closing(_connected(path)))
                self._open()
            except (sqlite3.Error, OSError) as error:
                allowed = f"{path.name} can't be used: {error}"
                raise InvalidRequest("data_dir", str(path.parent), allowed) from error
            self._opened = opened.pop_all()

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, not {VERSION}")
        (damage,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise sqlite3.DatabaseError(f"it is damaged; move it away or repair it ({damage})")
        self._db.executescript(_ADDED)
        self._add_columns()
        for db in (self._db, self._reader):
            db.execute("PRAGMA busy_timeout = 0")

    def _add_columns(self) -> None:
        known = {row["name"] for row in self._db.execute("PRAGMA table_info(jobs)")}
        for name, kind in _NEW_COLUMNS.items():
            if name not in known:
                self._db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
        self._db.executescript(_INDEXES)
        rows = self._db.execute("SELECT number, request FROM jobs WHERE words IS NULL").fetchall()
        if not rows:  # nothing waits for a lock
            return
        with self._writing():
            self._db.executemany(
                "UPDATE jobs SET words = ? WHERE number = ?",
                [(words_in(row["request"]), row["number"]) for row in rows],
            )

    def add(self, record: JobRecord, key: IdempotencyKey | None = None) -> JobRecord:
        with self._writing():
            if key is not None and (known := _find(self._db, key.key, record.owner)) is not None:
                return same_request(known, key)
            row = row_of(record)
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            self._db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", [*row.values()])
            if key is not None:
                self._db.execute(
                    "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?)",
                    (record.owner, key.key, key.fingerprint, record.id),
                )
        return record

    def find(self, key: str, owner: str) -> tuple[JobRecord, bytes] | None:
        with self._reading() as db:
            return _find(db, key, owner)

    def get(self, job_id: str, owner: str | None) -> JobRecord:
        with self._reading() as db:
            return record_of(_one(db, job_id, owner))

    def page(
        self,
        owner: str | None,
        kind: JobKind | None,
        after: str | None,
        limit: int,
        order: PageOrder,
        search: JobSearch = EVERYTHING,
    ) -> Page:
        wanted = tests_of(owner, kind, search, "?", "instr")
        sign, direction = (">", "ASC") if order == "asc" else ("<", "DESC")
        with self._reading() as db:
            if after is not None:
                wanted.append((f"number {sign} ?", _one(db, after, owner)["number"]))
            where = " AND ".join(test for test, _ in wanted) or "1"
            rows = db.execute(
                f"SELECT * FROM jobs WHERE {where} ORDER BY number {direction} LIMIT ?",
                [*(value for _, value in wanted), limit + 1],
            ).fetchall()
        return Page([record_of(row) for row in rows[:limit]], len(rows) > limit)

    def update(self, job_id: str, epoch: int, **changes: Any) -> None:
        with self._writing():
            self._change(job_id, changes)

    def end(self, job_id: str, epoch: int, *, notice: bool, **changes: Any) -> bool:
        with self._writing():
            ended = self._change(job_id, changes)
            if ended and notice:
                self._db.execute("INSERT INTO notices (job, due_at) VALUES (?, 0)", (job_id,))
        return ended

    def _change(self, job_id: str, changes: dict[str, Any]) -> bool:
        """Change an unfinished job; returns False if there is none."""
        sets = ", ".join(f"{name} = ?" for name in changes)
        values = [packed(name, value) for name, value in changes.items()]
        marks = ", ".join("?" * len(FINAL))
        changed = self._db.execute(
            f"UPDATE jobs SET {sets} WHERE id = ? AND status NOT IN ({marks})",
            [*values, job_id, *FINAL],
        )
        return changed.rowcount == 1

    def revise(
        self, job_id: str, owner: str | None, change: Callable[[JobRecord], Mapping[str, Any]]
    ) -> JobRecord:
        with self._writing():
            record = record_of(_one(self._db, job_id, owner))
            for name, value in (changes := change(record)).items():
                self._db.execute(
                    f"UPDATE jobs SET {name} = ? WHERE id = ?", (packed(name, value), job_id)
                )
        return record.updated(**changes)

    def starred(self) -> set[str]:
        with self._reading() as db:
            rows = db.execute("SELECT id, starred FROM jobs WHERE starred <> x'90'").fetchall()
        return starred_in(rows)

    def stored_files(self) -> Sequence[StoredFiles]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, files, completed_at, expires_at FROM jobs WHERE status = 'completed'"
            ).fetchall()
        return stored_files_of(rows)

    def delete(self, job_id: str) -> None:
        with self._writing():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def unfinished(self) -> Sequence[JobRecord]:
        marks = ", ".join("?" * len(FINAL))
        with self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs WHERE status NOT IN ({marks}) ORDER BY number", FINAL
            ).fetchall()
        return [record_of(row) for row in rows]

    def forget(self, before: float) -> None:
        with self._writing():
            self._db.execute(
                "DELETE FROM jobs WHERE completed_at < ? "
                "AND (status <> 'completed' OR expires_at < ?)",
                (before, before),
            )

    def claim_notices(self, limit: int, lease_s: float) -> Sequence[Notice]:
        now = time.monotonic()
        with self._writing():
            rows = self._db.execute(
                "SELECT jobs.*, tries FROM notices JOIN jobs ON jobs.id = job "
                "WHERE due_at <= ? ORDER BY due_at, number LIMIT ?",
                (now, limit),
            ).fetchall()
            for row in rows:
                self._db.execute(
                    "UPDATE notices SET due_at = ? WHERE job = ?", (now + lease_s, row["id"])
                )
        return [Notice(record_of(row), row["tries"]) for row in rows]

    def put_off(self, job_id: str, delay_s: float) -> None:
        with self._writing():
            self._db.execute(
                "UPDATE notices SET tries = tries + 1, due_at = ? WHERE job = ?",
                (time.monotonic() + delay_s, job_id),
            )

    def all_due(self) -> None:
        with self._writing():
            self._db.execute("UPDATE notices SET due_at = 0")

    def remove_notice(self, job_id: str) -> None:
        with self._writing():
            self._db.execute("DELETE FROM notices WHERE job = ?", (job_id,))

    def close(self) -> None:
        with self._writing_lock, self._reading_lock:
            self._opened.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Transaction: commits everything inside, or nothing."""
        with self._writing_lock, storing():
            self._roll_back()  # what could not be rolled back before
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite ends some itself
            self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._reading_lock, storing():
            yield self._reader


def _connected(path: Path) -> sqlite3.Connection:
    # Transactions are started and ended explicitly, in `_writing`.
    db = sqlite3.connect(path, _OPENING_S, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.text_factory = lambda text: text.decode("utf-8", "replace")
    return db


def _find(db: sqlite3.Connection, key: str, owner: str) -> tuple[JobRecord, bytes] | None:
    row = db.execute(
        "SELECT jobs.*, fingerprint FROM idempotency_keys JOIN jobs ON jobs.id = job "
        "WHERE idempotency_keys.owner = ? AND key = ?",
        (owner, key),
    ).fetchone()
    return None if row is None else (record_of(row), row["fingerprint"])


def _one(db: sqlite3.Connection, job_id: str, owner: str | None) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND owner = coalesce(?, owner)", (job_id, owner)
    ).fetchone()
    if row is None:
        raise NotFound(f"no job {job_id[:100]!r}")
    return row
