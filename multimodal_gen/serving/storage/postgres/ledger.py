"""A ledger in PostgreSQL, which many fronts share.

A front holds a job by a lease that it renews; `epoch` counts the fronts that had it. Whoever holds
the newest epoch ends the job, once: everyone else's end changes no row.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from multimodal_gen.configs.redacted_url import redacted
from multimodal_gen.errors import InvalidRequest, NotFound
from multimodal_gen.serving.fronts.news import News, added, cancel_asked, ended
from multimodal_gen.serving.records import (
    EVERYTHING,
    JobKind,
    JobRecord,
    JobSearch,
    PageOrder,
)
from multimodal_gen.serving.storage.ledger import (
    IdempotencyKey,
    Notice,
    Page,
    StoredFiles,
    same_request,
)
from multimodal_gen.serving.storage.postgres import statements
from multimodal_gen.serving.storage.postgres.connections import Connection, Connections, Row
from multimodal_gen.serving.storage.postgres.migrations import NewerSchema, migrate
from multimodal_gen.serving.storage.postgres.statements import RECORD
from multimodal_gen.serving.storage.rows import (
    packed,
    record_of,
    row_of,
    starred_in,
    stored_files_of,
    tests_of,
)

LEASE_S = 2.4
"""Time for which a front holds a job after each renewal."""
_BATCH = 1000
"""Number of jobs that one statement deletes."""
_MINE = "epoch = %s AND front = %s"
_ID = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True)
class ClaimedJob:
    """A job that this front has from now on."""

    record: JobRecord
    epoch: int
    waited_s: float
    """Seconds since it was accepted."""
    cancel_asked: bool


@dataclass(frozen=True)
class HeldJob:
    epoch: int
    cancel_asked: bool


@dataclass(frozen=True)
class Renewed:
    """Leases that a front holds, and the state of all."""

    asked_at: float
    """On a monotonic clock: what was taken later may be missing here."""
    held: Mapping[str, HeldJob]
    open: Counter[str]
    """Unfinished jobs of all fronts, by owner."""
    recent: frozenset[str]
    """Ids of those of them that were stored lately."""
    waiting: Counter[str]
    """Unfinished jobs that no front has, by model."""
    overdue: int
    """Those of them that end without an engine: late or cancelled."""


class PostgresLedger:
    """A Ledger that fronts share."""

    add_is_certain = False

    def __init__(self, url: str) -> None:
        """Raises InvalidRequest for a database that can't be used."""
        self.front = secrets.token_hex(8)
        """Name of this front, for as long as this process lives."""
        self._connections = Connections(url)
        try:
            with contextlib.closing(self._connections.open()) as db:
                migrate(db)
                self.channel = _channel(db)
        except NewerSchema as error:
            raise InvalidRequest("ledger", redacted(url), error.message) from error
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise InvalidRequest("ledger", redacted(url), f"can't be used: {reason}") from error

    # -- jobs

    def add(self, record: JobRecord, key: IdempotencyKey | None = None) -> JobRecord:
        row = row_of(record)
        names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
        limits = [req.params.deadline_s for req in record.request.requests]
        late_s = min((limit for limit in limits if limit is not None), default=None)
        insert = (
            f"INSERT INTO jobs ({names}, late_at) "
            f"VALUES ({marks}, now() + make_interval(secs => %s)) ON CONFLICT (id) DO NOTHING"
        )
        with contextlib.suppress(_KeyUsed), self._connections.transaction() as db:
            db.execute(_sql(insert), [*row.values(), late_s])
            if key is not None:
                self._use(db, record, key)
            self._tell(db, added(record.id))
            return record
        assert key is not None
        known = self.find(key.key, record.owner)
        return record if known is None else same_request(known, key)

    def _use(self, db: Connection, record: JobRecord, key: IdempotencyKey) -> None:
        """Store a key. Raises _KeyUsed, which undoes the job."""
        taken = db.execute(
            "INSERT INTO idempotency_keys (owner, key, fingerprint, job) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (owner, key) DO UPDATE SET job = idempotency_keys.job RETURNING job",
            (record.owner, _bytes(key.key), key.fingerprint, record.id),
        ).fetchone()
        if taken is None or taken["job"] != record.id:
            raise _KeyUsed

    def find(self, key: str, owner: str) -> tuple[JobRecord, bytes] | None:
        with self._connections.one() as db:
            row = db.execute(
                _sql(
                    f"SELECT {RECORD}, fingerprint FROM idempotency_keys "
                    "JOIN jobs ON jobs.id = job WHERE idempotency_keys.owner = %s AND key = %s"
                ),
                (owner, _bytes(key)),
            ).fetchone()
        return None if row is None else (record_of(row), row["fingerprint"])

    def get(self, job_id: str, owner: str | None) -> JobRecord:
        with self._connections.one() as db:
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
        wanted = tests_of(owner, kind, search, "%s", "strpos")
        sign, direction = (">", "ASC") if order == "asc" else ("<", "DESC")
        with self._connections.one() as db:
            if after is not None:
                wanted.append((f"number {sign} %s", _one(db, after, owner)["number"]))
            where = " AND ".join(test for test, _ in wanted) or "true"
            rows = db.execute(
                _sql(
                    f"SELECT {RECORD} FROM jobs WHERE {where} ORDER BY number {direction} LIMIT %s"
                ),
                [*(value for _, value in wanted), limit + 1],
            ).fetchall()
        return Page([record_of(row) for row in rows[:limit]], len(rows) > limit)

    def open_jobs(self, limit: int) -> Sequence[JobRecord]:
        """Unfinished jobs, in order of acceptance."""
        with self._connections.one() as db:
            rows = db.execute(
                _sql(f"SELECT {RECORD} FROM jobs WHERE NOT done ORDER BY number LIMIT %s"), (limit,)
            ).fetchall()
        return [record_of(row) for row in rows]

    def open_ids(self) -> set[str]:
        """Ids of unfinished jobs."""
        with self._connections.one() as db:
            return {row["id"] for row in db.execute("SELECT id FROM jobs WHERE NOT done")}

    def update(self, job_id: str, epoch: int, **changes: Any) -> None:
        with self._connections.one() as db:
            self._change(db, job_id, epoch, changes)

    def end(self, job_id: str, epoch: int, *, notice: bool, **changes: Any) -> bool:
        with self._connections.transaction() as db:
            if not self._change(db, job_id, epoch, changes):
                # Its own end, whose confirmation was lost with the connection, is no other's.
                mine = f"SELECT 1 FROM jobs WHERE id = %s AND {_MINE} AND done"
                row = db.execute(_sql(mine), (job_id, epoch, self.front)).fetchone()
                return row is not None
            if notice:
                db.execute("INSERT INTO notices (job) VALUES (%s)", (job_id,))
            self._tell(db, ended(job_id))
        return True

    def _change(self, db: Connection, job_id: str, epoch: int, changes: Mapping[str, Any]) -> bool:
        """Change an unfinished job of this front; returns False if there is none."""
        sets = ", ".join(f"{name} = %s" for name in changes)
        values = [packed(name, value) for name, value in changes.items()]
        changed = db.execute(
            _sql(f"UPDATE jobs SET {sets} WHERE id = %s AND {_MINE} AND NOT done"),
            [*values, job_id, epoch, self.front],
        )
        return changed.rowcount == 1

    def revise(
        self, job_id: str, owner: str | None, change: Callable[[JobRecord], Mapping[str, Any]]
    ) -> JobRecord:
        with self._connections.transaction() as db:
            record = record_of(_one(db, job_id, owner, "FOR UPDATE"))
            for name, value in (changes := change(record)).items():
                db.execute(
                    _sql(f"UPDATE jobs SET {name} = %s WHERE id = %s"),
                    (packed(name, value), job_id),
                )
        return record.updated(**changes)

    def starred(self) -> set[str]:
        with self._connections.one() as db:
            return starred_in(db.execute(statements.STARRED).fetchall())

    def stored_files(self) -> Sequence[StoredFiles]:
        with self._connections.one() as db:
            return stored_files_of(db.execute(statements.STORED_FILES).fetchall())

    def delete(self, job_id: str) -> None:
        with self._connections.transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = %s", (job_id,))
            self._tell(db, ended(job_id))

    def forget(self, before: float) -> None:
        deleted = _BATCH
        while deleted == _BATCH:
            with self._connections.one() as db:
                given = (before, before, _BATCH)
                deleted = db.execute(statements.FORGET, given).rowcount

    # -- leases

    def claim(self, count: int, model: str, *, take_over: bool = True) -> Sequence[ClaimedJob]:
        """Take up to `count` jobs of a model that no front has; with `take_over`, also those of
        fronts whose lease has ended."""
        given = {"count": count, "model": model, "take_over": take_over}
        return self._claim(statements.CLAIM, **given)

    def claim_overdue(self, count: int) -> Sequence[ClaimedJob]:
        """Take jobs that no living front has and that end without an engine."""
        return self._claim(statements.CLAIM_LATE, count=count)

    def _claim(self, statement: str, **given: Any) -> Sequence[ClaimedJob]:
        with self._connections.one() as db:
            given |= {"front": self.front, "lease_s": LEASE_S}
            rows = db.execute(_sql(statement), given).fetchall()
        return [
            ClaimedJob(record_of(row), row["epoch"], row["waited_s"], row["cancel_asked"])
            for row in sorted(rows, key=lambda row: row["number"])
        ]

    def renew(self, db: Connection) -> Renewed:
        """Renew all of this front's leases. Raises psycopg.Error."""
        asked_at = time.monotonic()
        rows = db.execute(statements.RENEW, (LEASE_S, self.front)).fetchall()
        counts = db.execute(_sql(statements.COUNT)).fetchall()
        held = {row["id"]: HeldJob(row["epoch"], row["cancel_asked"]) for row in rows}
        open_jobs, waiting = Counter[str](), Counter[str]()
        for row in counts:
            open_jobs[row["owner"]] += row["jobs"]
            waiting[row["model"]] += row["waiting"]
        overdue = sum(row["overdue"] for row in counts)
        recent = frozenset(job_id for row in counts for job_id in row["recent"] or ())
        return Renewed(asked_at, held, open_jobs, recent, waiting, overdue)

    def release(self, job_ids: Sequence[str] | None = None) -> None:
        """Give these jobs, or all, to other fronts, from the beginning."""
        with self._connections.transaction() as db:
            ids = None if job_ids is None else [*job_ids]
            if db.execute(statements.RELEASE, (self.front, ids, ids)).rowcount:
                self._tell(db, added(""))

    def ask_cancel(self, job_id: str) -> None:
        """Tell the front that has the job to cancel it; without one, any front does."""
        with self._connections.transaction() as db:
            db.execute("UPDATE jobs SET cancel_asked = true WHERE id = %s AND NOT done", (job_id,))
            self._tell(db, cancel_asked(job_id))

    # -- news

    def listening(self) -> contextlib.closing[Connection]:
        """Open a connection that hears the news of all fronts. Raises psycopg.Error."""
        db = self._connections.open()
        try:
            db.execute(_sql(f"LISTEN {self.channel}"))
        except BaseException:
            db.close()
            raise
        return contextlib.closing(db)

    def tell(self, news: Sequence[News]) -> None:
        """Tell all fronts."""
        with self._connections.transaction() as db:
            for one in news:
                self._tell(db, one)

    def _tell(self, db: Connection, news: News) -> None:
        db.execute("SELECT pg_notify(%s, %s)", (self.channel, news))

    # -- webhooks

    def claim_notices(self, limit: int, lease_s: float) -> Sequence[Notice]:
        with self._connections.transaction() as db:
            claimed = db.execute(statements.CLAIM_NOTICES, (lease_s, limit)).fetchall()
            tries = {row["job"]: row["tries"] for row in claimed}
            rows = db.execute(
                _sql(f"SELECT {RECORD} FROM jobs WHERE id = ANY(%s) ORDER BY completed_at, number"),
                ([*tries],),
            ).fetchall()
        return [Notice(record_of(row), tries[row["id"]]) for row in rows]

    def put_off(self, job_id: str, delay_s: float) -> None:
        with self._connections.one() as db:
            db.execute(
                "UPDATE notices SET tries = tries + 1, due_at = now() + make_interval(secs => %s) "
                "WHERE job = %s",
                (delay_s, job_id),
            )

    def all_due(self) -> None:
        """Does nothing: what a front claimed and didn't send is due when its lease ends."""

    def remove_notice(self, job_id: str) -> None:
        with self._connections.one() as db:
            db.execute("DELETE FROM notices WHERE job = %s", (job_id,))

    # -- others

    def secret(self, name: str) -> bytes:
        """A random secret that all fronts share."""
        with self._connections.one() as db:
            db.execute(
                "INSERT INTO secrets (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (name, secrets.token_bytes(32)),
            )
            row = db.execute("SELECT value FROM secrets WHERE name = %s", (name,)).fetchone()
        assert row is not None
        return bytes(row["value"])

    def close(self) -> None:
        self._connections.close()


class _KeyUsed(Exception):
    """Another job has the idempotency key."""


def _one(db: Connection, job_id: str, owner: str | None, lock: str = "") -> Row:
    row = None
    if _ID.fullmatch(job_id):
        one = f"SELECT {RECORD} FROM jobs WHERE id = %s AND owner = coalesce(%s::text, owner) "
        row = db.execute(_sql(one + lock), (job_id, owner)).fetchone()
    if row is None:
        raise NotFound(f"no job {job_id[:100]!r}")
    return row


def _channel(db: Connection) -> str:
    """Name of the fronts' channel: several ledgers may be in one database."""
    row = db.execute("SELECT 'jobs'::regclass::oid::bigint AS oid").fetchone()
    assert row is not None
    return f"multimodal_gen_{int(row['oid'])}"


def _bytes(key: str) -> bytes:
    """Any text of a header, which need not be valid in the database's encoding."""
    return key.encode("utf-8", "surrogatepass")


def _sql(text: str) -> LiteralString:
    """A statement made of constants and column names; values are always parameters."""
    return text
