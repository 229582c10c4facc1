"""What every ledger does, in SQLite and in PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_server import Database

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Conflict, GenerationFailed, InvalidRequest, NotFound
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.fronts import news
from multimodal_gen.serving.records import JobRecord, JobRequest, JobSearch
from multimodal_gen.serving.storage.ledger import IdempotencyKey, Ledger
from multimodal_gen.serving.storage.postgres import ledger as postgres_ledger
from multimodal_gen.serving.storage.postgres.ledger import PostgresLedger
from multimodal_gen.serving.storage.postgres.migrations import MIGRATIONS
from multimodal_gen.serving.storage.sqlite_ledger import SqliteLedger

Open = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgres"])
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "sqlite":
        return lambda: SqliteLedger(tmp_path / "jobs.sqlite")
    url = request.getfixturevalue("database").schema()
    return lambda: PostgresLedger(url)


@pytest.fixture
def ledger(open_ledger: Open) -> Iterator[Ledger]:
    with contextlib.closing(open_ledger()) as opened:
        yield opened


@pytest.fixture
def ledger_url(database: Database) -> str:
    return database.schema()


@pytest.fixture
def fronts(ledger_url: str) -> Iterator[tuple[PostgresLedger, PostgresLedger]]:
    with (
        contextlib.closing(PostgresLedger(ledger_url)) as one,
        contextlib.closing(PostgresLedger(ledger_url)) as other,
    ):
        yield one, other


def job(number: int, owner: str = "anne", **more: Any) -> JobRecord:
    params = SamplingParams(prompt=f"prompt {number}", **more)
    request = JobRequest([Req(id=f"r{number}", params=params)], {"padding": "x" * 100})
    return JobRecord(
        id=f"{number:032x}",
        kind="image",
        owner=owner,
        model="model",
        request=request,
        created_at=1000.0 + number,
    )


def take(ledger: Ledger, count: int = 100) -> int:
    """Have the jobs, and return the epoch of the last one; SQLite's are its own anyway."""
    if isinstance(ledger, PostgresLedger):
        return max((job.epoch for job in ledger.claim(count, "model")), default=0)
    return 0


DONE = {"status": "completed", "progress": 100, "completed_at": 2000.0, "files": ("a.png",)}


def test_a_record_comes_back_as_it_was_stored(ledger: Ledger) -> None:
    error = WireError.of(GenerationFailed("it \ud800 failed"))
    stored = job(1).updated(started_at=1.5, error=error, status="failed", files=("a", "b"))
    ledger.add(stored)
    assert ledger.get(stored.id, "anne") == stored
    assert ledger.get(stored.id, None) == stored


@pytest.mark.parametrize("name", ["0" * 32, "", "nothing", "a\0b", "é" * 500, "' OR 1=1"])
def test_unknown_jobs_are_not_found_whatever_their_id(ledger: Ledger, name: str) -> None:
    ledger.add(job(1))
    with pytest.raises(NotFound):
        ledger.get(name, None)
    with pytest.raises(NotFound):
        ledger.page(None, None, name, 5, "asc")


def test_another_owners_job_is_not_found(ledger: Ledger) -> None:
    ledger.add(job(1))
    with pytest.raises(NotFound):
        ledger.get(job(1).id, "bob")


def test_pages_are_in_order_of_acceptance_both_ways(ledger: Ledger) -> None:
    records = [job(number) for number in range(5)]
    for record in records:
        ledger.add(record)
    ledger.add(job(9, "bob"))
    first = ledger.page("anne", "image", None, 3, "asc")
    assert ([*first.records], first.has_more) == (records[:3], True)
    rest = ledger.page("anne", None, records[2].id, 3, "asc")
    assert ([*rest.records], rest.has_more) == (records[3:], False)
    assert [*ledger.page("anne", None, None, 2, "desc").records] == [records[4], records[3]]
    assert len(ledger.page(None, None, None, 10, "asc").records) == 6
    assert not ledger.page("anne", "video", None, 10, "asc").records


def test_an_idempotency_key_is_one_job_of_its_owner(ledger: Ledger) -> None:
    key = IdempotencyKey.of("k é", b"asked", {})
    first = ledger.add(job(1), key)
    assert ledger.add(job(2), key) == first
    assert ledger.add(job(3, "bob"), key).id == job(3).id
    with pytest.raises(Conflict):
        ledger.add(job(4), IdempotencyKey.of("k é", b"other", {}))
    found = ledger.find(key.key, "anne")
    assert found is not None
    assert (found[0], bytes(found[1])) == (first, key.fingerprint)
    assert ledger.find("another", "anne") is None
    assert len(ledger.page("anne", None, None, 10, "asc").records) == 1


def test_a_job_ends_once_and_is_told_once(ledger: Ledger) -> None:
    ledger.add(job(1))
    epoch = take(ledger)
    ledger.update(job(1).id, epoch, status="in_progress", started_at=5.0)
    assert ledger.get(job(1).id, None).started_at == 5.0
    assert ledger.end(job(1).id, epoch, notice=True, **DONE)
    ended = ledger.get(job(1).id, None)
    assert (ended.status, ended.files, ended.completed_at) == ("completed", ("a.png",), 2000.0)
    ledger.update(job(1).id, epoch, status="queued")
    assert ledger.get(job(1).id, None) == ended
    assert [notice.job for notice in ledger.claim_notices(9, 60.0)] == [ended]
    assert not ledger.claim_notices(9, 60.0)
    ledger.remove_notice(job(1).id)


def test_what_was_deleted_does_not_end(ledger: Ledger) -> None:
    ledger.add(job(1), IdempotencyKey.of("k", b"asked", {}))
    epoch = take(ledger)
    ledger.delete(job(1).id)
    assert not ledger.end(job(1).id, epoch, notice=True, **DONE)
    assert ledger.find("k", "anne") is None
    assert not ledger.claim_notices(9, 60.0)


def test_jobs_are_forgotten_by_the_time_of_their_end(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        ledger.add(job(number))
    epoch = take(ledger)
    for number in (1, 2):
        end = {**DONE, "completed_at": 1000.0 * number, "expires_at": 1000.0 * number}
        assert ledger.end(job(number).id, epoch, notice=True, **end)
    ledger.forget(2000.0)
    left = ledger.page(None, None, None, 10, "asc").records
    assert [record.id for record in left] == [job(2).id, job(3).id]


def test_notices_wait_for_their_next_try(ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.add(job(number))
    epoch = take(ledger)
    for number in (1, 2):
        ledger.end(job(number).id, epoch, notice=True, **DONE)
    assert len(ledger.claim_notices(1, 60.0)) == 1
    (second,) = ledger.claim_notices(9, 60.0)
    ledger.put_off(second.job.id, 0.0)
    (again,) = ledger.claim_notices(9, 0.0)
    assert (again.job.id, again.tries) == (second.job.id, 1)
    (lapsed,) = ledger.claim_notices(9, 60.0)
    assert lapsed == again


def test_records_outlive_the_process(open_ledger: Open) -> None:
    with contextlib.closing(open_ledger()) as first:
        first.add(job(1))
    with contextlib.closing(open_ledger()) as second:
        assert second.get(job(1).id, None) == job(1)


# -- PostgreSQL alone: many fronts


def test_a_stored_job_is_stored_once_however_often_it_is_tried(ledger_url: str) -> None:
    key = IdempotencyKey.of("k", b"asked", {})
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        assert ledger.add(job(1), key) == ledger.add(job(1), key) == job(1)
        epoch = take(ledger)
        assert ledger.end(job(1).id, epoch, notice=True, **DONE)
        assert ledger.end(job(1).id, epoch, notice=True, **DONE)
        assert len(ledger.claim_notices(9, 60.0)) == 1


def test_fronts_never_take_the_same_job(fronts: tuple[PostgresLedger, PostgresLedger]) -> None:
    one, other = fronts
    for number in range(10):
        one.add(job(number))
    taken = [*one.claim(4, "model"), *other.claim(9, "model")]
    assert sorted(each.record.id for each in taken) == [job(number).id for number in range(10)]
    assert not one.claim(9, "model")


def test_a_front_takes_only_jobs_of_models_that_it_serves(ledger_url: str) -> None:
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        ledger.add(job(1))
        assert not ledger.claim(9, "another")
        assert len(ledger.claim(9, "model")) == 1


def test_owners_with_fewer_jobs_go_first(ledger_url: str) -> None:
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        for number in range(6):
            ledger.add(job(number))
        ledger.add(job(6, "bob"))
        taken = [*ledger.claim(2, "model")]
        assert [each.record.owner for each in taken] == ["anne", "bob"]


def test_a_front_that_fell_silent_is_taken_over_and_its_end_is_refused(
    fronts: tuple[PostgresLedger, PostgresLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = fronts
    one.add(job(1))
    monkeypatch.setattr(postgres_ledger, "LEASE_S", 0.0)
    (first,) = one.claim(9, "model")
    assert not other.claim(9, "model", take_over=False)
    (second,) = other.claim(9, "model")
    assert (first.epoch, second.epoch) == (1, 2)
    one.update(job(1).id, first.epoch, status="in_progress")
    assert other.get(job(1).id, None).status == "queued"
    with one.listening() as db:
        assert not one.renew(db).held
    assert not one.end(job(1).id, first.epoch, notice=True, **DONE)
    assert other.end(job(1).id, second.epoch, notice=True, **DONE)
    assert not one.end(job(1).id, first.epoch, notice=True, **DONE)
    assert len(other.claim_notices(9, 60.0)) == 1


def test_released_jobs_are_taken_at_once(fronts: tuple[PostgresLedger, PostgresLedger]) -> None:
    one, other = fronts
    for number in (1, 2):
        one.add(job(number))
    epoch = take(one)
    one.update(job(1).id, epoch, status="in_progress", started_at=3.0)
    assert not other.claim(9, "model")
    one.release([job(1).id])
    (taken,) = other.claim(9, "model", take_over=False)
    assert (taken.record.status, taken.record.started_at) == ("queued", None)
    one.release()
    assert [each.record.id for each in other.claim(9, "model")] == [job(2).id]
    assert not one.end(job(1).id, epoch, notice=False, **DONE)


def test_late_and_cancelled_jobs_need_no_engine(
    fronts: tuple[PostgresLedger, PostgresLedger],
) -> None:
    one, other = fronts
    one.add(job(1, deadline_s=1e-6))
    one.add(job(2, deadline_s=1000.0))
    one.add(job(3))
    one.ask_cancel(job(3).id)
    with other.listening() as db:
        counted = other.renew(db)
    assert (counted.open, counted.waiting, counted.overdue) == ({"anne": 3}, {job(1).model: 3}, 2)
    taken = {each.record.id: each for each in other.claim_overdue(9)}
    assert [taken[job(number).id].cancel_asked for number in (1, 3)] == [False, True]
    assert len(taken) == 2
    assert taken[job(1).id].waited_s > 1e-6


def test_a_wish_to_cancel_reaches_the_front_that_has_the_job(
    fronts: tuple[PostgresLedger, PostgresLedger],
) -> None:
    one, other = fronts
    one.add(job(1))
    with one.listening() as db:
        take(one)
        other.ask_cancel(job(1).id)
        heard = [news.parse(notify.payload) for notify in db.notifies(timeout=10, stop_after=1)]
        assert news.CancelAsked(job(1).id) in heard
        assert one.renew(db).held[job(1).id].cancel_asked


def test_two_fronts_that_start_at_once_make_the_tables_once(ledger_url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        for ledger in pool.map(PostgresLedger, [ledger_url] * 4):
            ledger.close()
    with psycopg.connect(ledger_url) as db:
        versions = db.execute("SELECT version FROM schema_versions").fetchall()
    assert versions == [(number + 1,) for number in range(len(MIGRATIONS))]


def test_tables_of_a_newer_version_are_refused(ledger_url: str) -> None:
    PostgresLedger(ledger_url).close()
    with psycopg.connect(ledger_url) as db:
        db.execute("INSERT INTO schema_versions (version) VALUES (99)")
    with pytest.raises(InvalidRequest, match=r"ledger=.*version 99.*upgrade this server"):
        PostgresLedger(ledger_url)


@pytest.mark.parametrize(
    "given", ["postgresql://me:hidden@127.0.0.1:9/db", "postgresql://127.0.0.1:9/?password=hidden"]
)
def test_a_database_that_can_not_be_reached_is_named_without_its_password(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"ledger='postgresql://.*can't be used") as caught:
        PostgresLedger(given)
    assert "hidden" not in str(caught.value)


def test_all_fronts_have_the_same_secret(fronts: tuple[PostgresLedger, PostgresLedger]) -> None:
    one, other = fronts
    assert one.secret("links") == other.secret("links")
    assert one.secret("links") != one.secret("others")


@pytest.mark.parametrize(
    ("column", "value"), [("request", b"\xc1"), ("files", b"\xc1"), ("kind", "poem")]
)
def test_a_row_that_can_not_be_read_is_a_failed_job(
    ledger_url: str, column: str, value: Any
) -> None:
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        ledger.add(job(1))
        with psycopg.connect(ledger_url) as db:
            db.execute(
                psycopg.sql.SQL("UPDATE jobs SET {} = %s").format(psycopg.sql.Identifier(column)),
                (value,),
            )
        (taken,) = ledger.claim(9, "model")
    assert taken.record.status == "failed"
    assert taken.record.error is not None
    assert f"{column}: " in taken.record.error.message


def test_progress_is_told_in_messages_that_postgresql_takes() -> None:
    jobs = {f"{number:032x}": [(1, 20, 0, 3.25, "denoise", 4)] * 4 for number in range(500)}
    jobs["f" * 32] = [(1, 20, 0, None, "", 0)] * 1000
    told = [*news.moved("front", jobs)]
    assert all(len(one) < 8000 for one in told)
    heard: dict[str, Any] = {}
    for one in told:
        parsed = news.parse(one)
        assert isinstance(parsed, news.JobsMoved)
        heard |= parsed.jobs
    assert len(heard) == 500


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "{",
        "[]",
        '{"type":"unknown"}',
        '{"type":"ended","job":"../../x"}',
        '{"type":"moved","front":"a","jobs":{"0":[[-1,2,3,4,"",0]]}}',
        '{"type":"moved","front":"a","jobs":{"0":[[1e400,2,3,4,"",0]]}}',
        "[" * 7000,
    ],
)
def test_messages_of_others_in_the_database_are_ignored(sent: str) -> None:
    assert news.parse(sent) is None


def test_the_ledgers_records_are_the_same_in_both() -> None:
    columns = MIGRATIONS[0].partition("CREATE INDEX")[0] + MIGRATIONS[1]
    for field in dataclasses.fields(JobRecord):
        named = (f"\n        {field.name} ", f"ADD COLUMN {field.name} ")
        assert any(each in columns for each in named)


def of_version_1(path: Path) -> None:
    """Take away what later versions added."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX jobs_starred")
        for column in ("starred", "words"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        db.commit()


def test_a_file_of_an_earlier_version_can_be_searched_and_starred(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with contextlib.closing(SqliteLedger(path)) as ledger:
        ledger.add(job(1))
        ledger.add(job(2))
    of_version_1(path)
    with contextlib.closing(SqliteLedger(path)) as ledger:
        found = ledger.page("anne", None, None, 10, "asc", JobSearch(words="PROMPT 2"))
        assert [*found.records] == [job(2)]
        ledger.revise(job(1).id, "anne", lambda _: {"starred": (0,)})
        assert ledger.starred() == {f"{job(1).id}-0"}


def test_jobs_of_an_earlier_front_can_be_searched(ledger_url: str) -> None:
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        ledger.add(job(1))
        with ledger._connections.one() as db:
            db.execute("UPDATE jobs SET words = NULL")
    with contextlib.closing(PostgresLedger(ledger_url)) as ledger:
        assert ledger.page("anne", None, None, 10, "asc", JobSearch(words="prompt 1")).records


def asked_for(number: int, prompt: str, **more: Any) -> JobRecord:
    record = job(number)
    request = JobRequest([Req(id="r", params=SamplingParams(prompt=prompt))])
    return record.updated(request=request, **more)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (JobSearch(words="heart"), [1, 2]),
        (JobSearch(words="HEART red"), [1]),
        (JobSearch(words="straße"), [3]),
        (JobSearch(words="STRASSE 心"), [3]),
        (JobSearch(words="100%"), [4]),
        (JobSearch(words="_"), []),
        (JobSearch(words="' OR 1=1 \0 \ud800"), []),
        (JobSearch(model="other"), [2]),
        (JobSearch(model="other", words="red"), []),
        (JobSearch(since=1002.0, before=1004.0), [2, 3]),
        (JobSearch(starred=True), []),
    ],
)
def test_jobs_are_found_by_words_model_and_time(
    ledger: Ledger, search: JobSearch, found: list[int]
) -> None:
    ledger.add(asked_for(1, "a Red heart"))
    ledger.add(asked_for(2, "a blue HEART", model="other"))
    ledger.add(asked_for(3, "eine Straße, 心 \0"))
    ledger.add(asked_for(4, "100% cotton"))
    page = ledger.page("anne", None, None, 10, "asc", search)
    assert [record.id for record in page.records] == [job(number).id for number in found]


def test_what_is_found_is_in_pages(ledger: Ledger) -> None:
    for number in range(6):
        ledger.add(asked_for(number, "even" if number % 2 == 0 else "odd"))
    search = JobSearch(words="even")
    first = ledger.page("anne", None, None, 2, "desc", search)
    assert ([each.id for each in first.records], first.has_more) == ([job(4).id, job(2).id], True)
    rest = ledger.page("anne", None, job(2).id, 2, "desc", search)
    assert ([each.id for each in rest.records], rest.has_more) == ([job(0).id], False)


def test_an_ended_job_is_changed_for_all_and_only_by_its_owner(open_ledger: Open) -> None:
    with contextlib.closing(open_ledger()) as ledger:
        ledger.add(job(1))
        changed = ledger.revise(job(1).id, "anne", lambda record: {"starred": (0, 2)})
        assert changed == job(1).updated(starred=(0, 2))
        with pytest.raises(NotFound):
            ledger.revise(job(1).id, "bob", lambda record: {"starred": ()})
    with contextlib.closing(open_ledger()) as ledger:
        assert ledger.get(job(1).id, "anne") == changed
        assert ledger.starred() == {f"{job(1).id}-0", f"{job(1).id}-2"}
        starred = ledger.page("anne", None, None, 5, "asc", JobSearch(starred=True))
        assert [*starred.records] == [changed]


def test_what_fails_to_change_a_job_changes_nothing(ledger: Ledger) -> None:
    ledger.add(job(1))

    def refuse(record: JobRecord) -> dict[str, Any]:
        raise NotFound("it")

    with pytest.raises(NotFound):
        ledger.revise(job(1).id, None, refuse)
    ledger.revise(job(1).id, None, lambda record: {"starred": (1,)})
    assert ledger.get(job(1).id, None).starred == (1,)
