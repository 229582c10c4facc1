"""The ledger's longer statements. `%s` are parameters."""

from __future__ import annotations

from multimodal_gen.serving.storage.rows import COLUMNS

RECORD = ", ".join(f"jobs.{column}" for column in ("number", *COLUMNS))
UNHELD = "NOT done AND lease_until < now()"

CLAIM = f"""
WITH held AS (
    SELECT owner, count(*) AS jobs FROM jobs WHERE NOT done AND lease_until >= now() GROUP BY owner
), waiting AS (
    SELECT id, number, owner, row_number() OVER (PARTITION BY owner ORDER BY number) AS place
    FROM jobs
    WHERE {UNHELD} AND model = %(model)s AND (front IS NULL OR %(take_over)s)
), next AS (
    SELECT id, place + coalesce(held.jobs, 0) AS turn FROM waiting LEFT JOIN held USING (owner)
    ORDER BY turn, number LIMIT 2 * %(count)s
), mine AS (
    SELECT jobs.id FROM jobs JOIN next USING (id) WHERE {UNHELD}
    ORDER BY turn, number LIMIT %(count)s FOR UPDATE OF jobs SKIP LOCKED
)
UPDATE jobs SET front = %(front)s, epoch = epoch + 1,
    lease_until = now() + make_interval(secs => %(lease_s)s)
WHERE id IN (SELECT id FROM mine)
RETURNING {RECORD}, epoch, cancel_asked, extract(epoch FROM now() - accepted_at)::float8 AS waited_s
"""
"""Owners with the fewest jobs on all fronts go first. Twice as many are looked at, as other fronts
may be taking the same ones."""

CLAIM_LATE = f"""
UPDATE jobs SET front = %(front)s, epoch = epoch + 1,
    lease_until = now() + make_interval(secs => %(lease_s)s)
WHERE id IN (
    SELECT id FROM jobs WHERE {UNHELD} AND (late_at <= now() OR cancel_asked)
    ORDER BY number LIMIT %(count)s FOR UPDATE SKIP LOCKED
)
RETURNING {RECORD}, epoch, cancel_asked, extract(epoch FROM now() - accepted_at)::float8 AS waited_s
"""
"""Jobs whose deadline has passed, or that a client cancelled, need no engine to end."""

RENEW = """
UPDATE jobs SET lease_until = now() + make_interval(secs => %s)
WHERE front = %s AND NOT done RETURNING id, epoch, cancel_asked
"""

COUNT = """
SELECT owner, model, count(*) AS jobs, count(*) FILTER (WHERE lease_until < now()) AS waiting,
    count(*) FILTER (
        WHERE lease_until < now() AND (late_at <= now() OR cancel_asked)
    ) AS overdue,
    array_agg(id) FILTER (WHERE accepted_at > now() - interval '30 s') AS recent
FROM jobs WHERE NOT done GROUP BY owner, model
"""
"""`recent`: ids of those that a front may have stored while this was counted."""

RELEASE = """
UPDATE jobs SET front = NULL, lease_until = 'epoch', status = 'queued', started_at = NULL
WHERE front = %s AND NOT done AND (%s::text[] IS NULL OR id = ANY(%s::text[]))
"""

FORGET = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs WHERE completed_at < %s AND (status <> 'completed' OR expires_at < %s)
    LIMIT %s
)
"""

STARRED = "SELECT id, starred FROM jobs WHERE starred <> '\\x90'"

STORED_FILES = """
SELECT id, files, completed_at, expires_at FROM jobs WHERE status = 'completed'
"""

CLAIM_NOTICES = """
UPDATE notices SET due_at = now() + make_interval(secs => %s) WHERE job IN (
    SELECT job FROM notices WHERE due_at <= now()
    ORDER BY due_at, job LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING job, tries
"""
