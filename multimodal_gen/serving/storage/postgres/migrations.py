"""Versions of the ledger's tables, and the steps between them."""

from __future__ import annotations

import psycopg

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.serving.storage.postgres.connections import Connection
from multimodal_gen.serving.storage.rows import words_in

_LOCK = 0x6D6D67656E  # "mmgen": of fronts that start at once, one changes the tables
_VERSIONS = """
CREATE TABLE IF NOT EXISTS schema_versions (
    version INTEGER PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        model TEXT NOT NULL,
        request BYTEA NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        started_at DOUBLE PRECISION,
        completed_at DOUBLE PRECISION,
        expires_at DOUBLE PRECISION,
        status TEXT NOT NULL,
        progress INTEGER NOT NULL,
        error BYTEA,
        files BYTEA NOT NULL,
        accepted_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        late_at TIMESTAMPTZ,
        front TEXT,
        epoch BIGINT NOT NULL DEFAULT 0,
        lease_until TIMESTAMPTZ NOT NULL DEFAULT 'epoch',
        cancel_asked BOOLEAN NOT NULL DEFAULT false,
        done BOOLEAN NOT NULL GENERATED ALWAYS AS
            (status IN ('completed', 'failed', 'cancelled')) STORED
    );
    CREATE INDEX jobs_of_owner ON jobs (owner, kind, number);
    CREATE INDEX jobs_of_owner_in_order ON jobs (owner, number);
    CREATE INDEX jobs_by_end ON jobs (completed_at) WHERE completed_at IS NOT NULL;
    CREATE INDEX jobs_open ON jobs (number) WHERE NOT done;
    CREATE INDEX jobs_held ON jobs (front) WHERE NOT done;
    CREATE TABLE idempotency_keys (
        owner TEXT NOT NULL,
        key BYTEA NOT NULL,
        fingerprint BYTEA NOT NULL,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        PRIMARY KEY (owner, key)
    );
    CREATE INDEX idempotency_keys_of_job ON idempotency_keys (job);
    CREATE TABLE notices (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        tries INTEGER NOT NULL DEFAULT 0,
        due_at TIMESTAMPTZ NOT NULL DEFAULT now()
    );
    CREATE INDEX notices_by_time ON notices (due_at);
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BYTEA NOT NULL);
    """,
    """
    ALTER TABLE jobs ADD COLUMN starred BYTEA NOT NULL DEFAULT '\\x90';
    ALTER TABLE jobs ADD COLUMN words TEXT;
    CREATE INDEX jobs_starred ON jobs (number) WHERE starred <> '\\x90';
    """,
)
"""Step `i` leads to version `i + 1`. Published steps never change; a new one is added at the end,
and must leave tables that the version before it can still use, for rolling upgrades."""


class NewerSchema(MultimodalGenError):
    """The tables are of a newer version of this program."""


def migrate(db: Connection) -> None:
    """Bring the tables to this version. Raises NewerSchema, psycopg.Error."""
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        db.execute(_VERSIONS)
        row = db.execute("SELECT max(version) AS version FROM schema_versions").fetchone()
        version = (row and row["version"]) or 0
        if version > len(MIGRATIONS):
            raise NewerSchema(
                f"its tables have version {version}, and this server knows up to version "
                f"{len(MIGRATIONS)}: upgrade this server"
            )
        for number in range(version, len(MIGRATIONS)):
            db.execute(psycopg.sql.SQL(MIGRATIONS[number]))
            db.execute("INSERT INTO schema_versions (version) VALUES (%s)", (number + 1,))
    _fill_words(db)


def _fill_words(db: Connection) -> None:
    """Make jobs that an older version stored searchable."""
    rows = db.execute("SELECT number, request FROM jobs WHERE words IS NULL").fetchall()
    for row in rows:
        given = (words_in(row["request"]), row["number"])
        db.execute("UPDATE jobs SET words = %s WHERE number = %s", given)
