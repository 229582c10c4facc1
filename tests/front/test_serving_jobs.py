"""Jobs that are kept: accepted once, taken up again, and gone when their time is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_engine import settle
from http_serving import MODEL
from job_service import ADMIN, ANNE, BOB, INPUTS, PICTURE, JobService, in_ledger, run_jobs, same

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import Conflict, InvalidRequest, NotFound, OutOfMemory, QueueFull
from multimodal_gen.serving.storage.data_folder import DataFolder
from multimodal_gen.serving.storage.sqlite_ledger import SqliteLedger
from multimodal_gen.serving.task import Made


def test_a_job_is_known_from_acceptance_to_its_file(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await server.submit("a heart", meta={"size": "auto"})
        assert (record.status, record.owner, record.meta) == ("queued", "anne", {"size": "auto"})
        server.engine.step("a heart", 10)
        await settle()
        now = await server.jobs.get(record.id, ANNE)
        assert (now.status, now.progress) == ("in_progress", 49)
        server.engine.finish("a heart")
        done = await server.jobs.finished(record.id, ANNE)
        assert (done.status, done.progress) == ("completed", 100)
        assert done.expires_at is None
        assert server.jobs.results.path(done.files[0]).read_bytes().startswith(b"\x89PNG")

    run_jobs(tmp_path, test)


def test_what_a_killed_server_left_is_taken_up_in_order_with_the_same_requests(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        records = [await killed.submit(prompt, pictures=INPUTS) for prompt in ("a", "b", "c")]
        killed.engine.finish("a")
        await killed.jobs.finished(records[0].id, ANNE)
        killed.engine.step("b", 3)
        while (await in_ledger(killed, records[1].id)).status != "in_progress":
            await asyncio.sleep(0.01)  # What is killed writes nothing any more.

        following = JobService(tmp_path)
        await following.up()
        assert following.engine.alive == killed.engine.alive
        assert following.engine.prompts == ["b", "c"]
        sent = following.engine.pictures
        assert all(same(sent[name], INPUTS) for name in sent)
        for prompt in ("b", "c"):
            following.engine.finish(prompt)
        for record in records:
            assert (await following.jobs.finished(record.id, ANNE)).status == "completed"
        assert not list((tmp_path / "pictures").iterdir())
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_a_job_that_ends_while_those_of_an_earlier_server_are_taken_up_is_not_run_again(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        old = (await killed.submit("old")).id
        following = JobService(tmp_path)
        next(following.service.fleet.engines).engine_up(following.engine)  # type: ignore[arg-type]
        new = (await following.submit("new")).id
        read = following.jobs._ledger.unfinished

        def slowly() -> Any:
            left = read()
            following.engine.finish("new")
            while (
                not following.jobs._ledger.get(new, None).done or new in following.jobs._runner.runs
            ):
                time.sleep(0.01)
            return left

        following.jobs._ledger.unfinished = slowly  # type: ignore[method-assign]
        await following.jobs.resume()
        await settle()
        assert following.engine.prompts == ["old"]
        assert (await following.jobs.get(new, ANNE)).status == "completed"
        following.engine.finish("old")
        assert (await following.jobs.finished(old, ANNE)).status == "completed"
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_a_job_of_an_earlier_server_can_be_cancelled_before_it_is_taken_up(tmp_path: Path) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        cancelled, deleted = [(await killed.submit(prompt, pictures=PICTURE)).id for prompt in "ab"]
        following = JobService(tmp_path)
        assert (await following.jobs.cancel(cancelled, ANNE)).status == "cancelled"
        await following.jobs.delete(deleted, ANNE)
        await following.up()
        assert following.engine.prompts == []
        assert not list((tmp_path / "pictures").iterdir())
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_a_job_is_not_forgotten_because_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: JobService) -> None:
        made, failed = [(await server.submit(prompt)).id for prompt in ("made", "failed")]
        monkeypatch.setattr(time, "time", lambda: 0.0)  # as without a battery, until NTP answers
        server.engine.finish("made")
        server.engine.fail("failed", OutOfMemory("too large"))
        await server.jobs.finished(made, ANNE)
        await server.jobs.finished(failed, ANNE)
        await asyncio.to_thread(server.jobs._sweep)
        assert (await server.jobs.get(made, ANNE)).status == "completed"
        assert (await server.jobs.get(failed, ANNE)).status == "failed"

    run_jobs(tmp_path, test)


def test_a_folder_of_images_that_is_gone_keeps_no_job_from_being_resumed(tmp_path: Path) -> None:
    async def second() -> None:
        server = JobService(tmp_path)
        (tmp_path / "pictures").rmdir()
        await server.up()
        assert server.engine.prompts == ["a"]
        await server.stop()

    async def first(server: JobService) -> None:
        await server.submit("a")

    run_jobs(tmp_path, first)
    asyncio.run(second())


def test_a_server_told_to_stop_leaves_its_jobs_to_the_next(tmp_path: Path) -> None:
    async def first(server: JobService) -> None:
        for prompt in ("running", "waiting"):
            await server.submit(prompt)
        server.engine.step("running", 3)
        await settle()

    async def second(server: JobService) -> None:
        assert server.engine.prompts == ["running", "waiting"]
        page = await server.jobs.page(ANNE, order="asc")
        assert [record.status for record in page.records] == ["queued", "queued"]

    run_jobs(tmp_path, first)
    run_jobs(tmp_path, second)


def test_draining_waits_for_the_job_that_runs_and_begins_no_other(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        running = await server.submit("running")
        waiting = await server.submit("waiting")
        server.engine.step("running", 3)
        await settle()
        draining = asyncio.create_task(server.service.drain(60))
        await settle()
        server.engine.finish("running")
        await draining
        assert server.engine.prompts == []
        assert (await server.jobs.finished(running.id, ANNE)).status == "completed"
        assert (await server.jobs.get(waiting.id, ANNE)).status == "queued"

    run_jobs(tmp_path, test, in_flight=1)


def test_jobs_of_a_model_that_is_not_served_any_more_fail(tmp_path: Path) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        record = await killed.submit("a")
        following = JobService(tmp_path)
        following.engine.model = msgspec.structs.replace(MODEL, name="another")
        await following.up()
        failed = await following.jobs.get(record.id, ANNE)
        assert failed.status == "failed"
        assert failed.error is not None
        assert MODEL.name in failed.error.message
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_the_same_request_with_the_same_key_is_one_job(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        first = await server.submit("a", idempotency_key="k", pictures=PICTURE)
        again = await server.submit("a", idempotency_key="k", pictures=PICTURE)
        assert first.id == again.id
        assert server.engine.prompts == ["a"]
        assert (await server.submit("a", idempotency_key="k2")).id != first.id
        assert (await server.submit("a", BOB, idempotency_key="k")).id != first.id
        with pytest.raises(Conflict):
            await server.submit("b", idempotency_key="k", pictures=PICTURE)
        with pytest.raises(Conflict):
            await server.submit("a", idempotency_key="k")

    run_jobs(tmp_path, test)


def test_the_same_key_at_the_same_time_is_one_job(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        sent = [server.submit("a", idempotency_key="k", pictures=PICTURE) for _ in range(4)]
        records = await asyncio.gather(*sent)
        assert len({record.id for record in records}) == 1
        assert server.engine.prompts == ["a"]
        assert len(list((tmp_path / "pictures").iterdir())) == 1

    run_jobs(tmp_path, test)


def test_jobs_are_their_owners_and_the_admins(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await server.submit("a", ANNE)
        assert (await server.jobs.get(record.id, ADMIN)).id == record.id
        assert not (await server.jobs.page(BOB)).records
        for ask in (server.jobs.get, server.jobs.delete, server.jobs.cancel):
            with pytest.raises(NotFound):
                await ask(record.id, BOB)
        assert server.engine.prompts == ["a"]

    run_jobs(tmp_path, test)


def test_pages_follow_one_another_both_ways(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        records = [await server.submit(str(index)) for index in range(5)]
        await server.submit("other", BOB)
        names = [record.id for record in records]

        async def all_pages(order: Any) -> list[str]:
            found: list[str] = []
            while True:
                after = found[-1] if found else None
                page = await server.jobs.page(ANNE, "image", after, 2, order)
                found += [record.id for record in page.records]
                if not page.has_more:
                    return found

        assert await all_pages("asc") == names
        assert await all_pages("desc") == names[::-1]
        assert not (await server.jobs.page(ANNE, "video")).records
        with pytest.raises(NotFound):
            await server.jobs.page(ANNE, after="nothing")

    run_jobs(tmp_path, test)


def test_deleting_stops_the_work_and_leaves_nothing(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        running = await server.submit("running", pictures=PICTURE)
        server.engine.step("running", 3)
        await settle()
        await server.jobs.delete(running.id, ANNE)
        await settle()
        assert not server.engine.alive
        done = await server.submit("done")
        server.engine.finish("done")
        done = await server.jobs.finished(done.id, ANNE)
        await server.jobs.delete(done.id, ANNE)
        for record in (running, done):
            with pytest.raises(NotFound):
                await server.jobs.get(record.id, ANNE)
        assert not list((tmp_path / "pictures").iterdir())
        assert not list((tmp_path / "results").iterdir())

    run_jobs(tmp_path, test)


def test_a_cancelled_job_is_known_as_such(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await server.submit("a")
        assert (await server.jobs.cancel(record.id, ANNE)).status == "cancelled"
        await settle()
        assert not server.engine.alive

    run_jobs(tmp_path, test)


def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await server.submit("a")
        server.engine.fail("a", OutOfMemory("too large for the device"))
        failed = await server.jobs.finished(record.id, ANNE)
        assert failed.status == "failed"
        assert failed.error is not None
        assert (failed.error.code, failed.error.message) == (
            "out_of_memory",
            "too large for the device",
        )

    run_jobs(tmp_path, test)


@pytest.mark.parametrize("broken", ["render", "_completed"])
def test_a_job_whose_result_cannot_be_recorded_fails(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a fault of ours")

    async def test(server: JobService) -> None:
        monkeypatch.setattr(server.jobs._runner, broken, fail)
        record = await server.submit("a")
        server.engine.finish("a")
        failed = await server.jobs.finished(record.id, ANNE)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.message == "the result could not be saved: ValueError: a fault of ours"

    run_jobs(tmp_path, test)


def test_what_finds_no_room_is_not_kept(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        await server.submit("a")
        with pytest.raises(QueueFull):
            await server.submit("b")
        assert len((await server.jobs.page(ANNE)).records) == 1

    run_jobs(tmp_path, test, capacity=1)


def test_a_job_is_followed_to_its_end_and_after(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await server.submit("a")

        hears = asyncio.Event()

        async def follow() -> list[Any]:
            events = []
            async for event in server.jobs.follow(record.id, ANNE):
                events.append(event)
                hears.set()
            return events

        following = asyncio.create_task(follow())
        await hears.wait()
        server.engine.finish("a")
        assert isinstance((await following)[-1], Made)
        await server.jobs.finished(record.id, ANNE)
        assert await follow() == []

    run_jobs(tmp_path, test)


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidRequest, match="version 99"):
        SqliteLedger(tmp_path / "jobs.sqlite")


def test_a_data_folder_is_one_servers(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data")
    with pytest.raises(InvalidRequest, match="another server"):
        DataFolder(tmp_path / "data")
    first.close()
    DataFolder(tmp_path / "data").close()


def test_a_temporary_data_folder_goes_even_when_its_server_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    args = ServerArgs(port=0)
    killed = DataFolder.of(args)
    os.close(killed._lock)
    following = DataFolder.of(args)
    assert list(tmp_path.iterdir()) == [following.path]
    following.close()
    assert not list(tmp_path.iterdir())
