"""Storage that fails: each job ends once, with its reason, and clients know when to come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, settle
from job_service import ANNE, BOB, PICTURE, JobService, in_ledger, run_jobs
from storage_faults import fill, full, locked, small_disk

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.errors import (
    EngineNotReady,
    InvalidRequest,
    OutOfMemory,
    StorageFull,
    StorageUnavailable,
)
from multimodal_gen.serving import jobs
from multimodal_gen.serving.fronts import runner
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage import persistence
from multimodal_gen.serving.storage.data_folder import DataFolder
from multimodal_gen.serving.storage.sqlite_ledger import SqliteLedger

Fault = Callable[[Path], contextlib.AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, type[Exception]]] = {
    "locked": (locked, StorageUnavailable),
    "full": (lambda _: full(), StorageFull),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> Fault:
    return FAULTS[request.param][0]


@pytest.fixture
def refusal(request: pytest.FixtureRequest, fault: Fault) -> type[Exception]:
    return next(kind for each, kind in FAULTS.values() if each is fault)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    monkeypatch.setattr(runner, "RESULTS_PATIENCE_S", 0.0)
    monkeypatch.setattr(persistence, "LAST_TRIES_S", 0.0)


async def waits(server: JobService, job_id: str) -> None:
    """Until the end of a job could not be stored."""
    while job_id not in server.jobs._runner.records._waiting:
        await asyncio.sleep(0.01)


def test_ends_wait_for_storage_and_new_jobs_are_told_to_come_back(
    tmp_path: Path, fault: Fault, refusal: type[Exception]
) -> None:
    async def test(server: JobService) -> None:
        ids = [(await server.submit(prompt)).id for prompt in ("a", "b", "c")]
        with fault(tmp_path):
            server.engine.fail("a", OutOfMemory("too large"))
            server.engine.finish("b")
            for job in ids[:2]:
                await waits(server, job)
            page = await server.jobs.page(ANNE, order="asc")
            assert [record.done for record in page.records] == [False] * 3
            with pytest.raises(refusal) as caught:
                await server.submit("d", pictures=PICTURE)
            assert caught.value.retry_after_s  # type: ignore[attr-defined]
            for act in (server.jobs.delete, server.jobs.cancel):
                with pytest.raises(refusal):
                    await act(ids[2], ANNE)
        ended = [await server.jobs.finished(job, ANNE) for job in ids]
        stored = "completed" if fault is locked else "failed"
        assert [record.status for record in ended] == ["failed", stored, "cancelled"]
        assert [record.error and record.error.code for record in ended] == [
            "out_of_memory",
            None if fault is locked else "storage_full",
            "cancelled",
        ]
        assert not list((tmp_path / "pictures").iterdir())
        assert len((await server.jobs.page(ANNE)).records) == 3

    run_jobs(tmp_path, test)


def test_results_wait_for_a_disk_that_is_full_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS_PATIENCE_S", 60.0)

    async def test(server: JobService) -> None:
        job = (await server.submit("a")).id
        with full():
            server.engine.finish("a")
            await waits(server, job)
            with pytest.raises(StorageFull):
                await server.jobs.delete(job, ANNE)
        assert (await server.jobs.finished(job, ANNE)).status == "completed"

    run_jobs(tmp_path, test)


def test_results_that_the_disk_never_takes_are_made_again_by_the_next_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS_PATIENCE_S", 60.0)

    async def stopped_while_full() -> None:
        server = JobService(tmp_path)
        await server.up()
        job = (await server.submit("a")).id
        with full():
            server.engine.finish("a")
            await waits(server, job)
            await server.stop()

    async def resumed(server: JobService) -> None:
        assert server.engine.prompts == ["a"]

    asyncio.run(stopped_while_full())
    run_jobs(tmp_path, resumed)


def test_ends_that_storage_never_takes_are_left_to_the_next_server(tmp_path: Path) -> None:
    async def test() -> None:
        first = JobService(tmp_path)
        await first.up()
        job = (await first.submit("a")).id
        with locked(tmp_path):
            first.engine.finish("a")
            await waits(first, job)
            await first.stop()
        second = JobService(tmp_path)
        await second.up()
        assert second.engine.prompts == ["a"]
        second.engine.finish("a")
        assert (await second.jobs.finished(job, ANNE)).status == "completed"
        await second.stop()

    asyncio.run(test())


def test_a_server_starts_and_resumes_while_the_ledger_is_locked(tmp_path: Path) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        job = (await killed.submit("a")).id
        with locked(tmp_path):
            following = JobService(tmp_path)
            await following.up()
            assert following.engine.prompts == ["a"]
        following.engine.finish("a")
        assert (await following.jobs.finished(job, ANNE)).status == "completed"
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_on_a_real_disk_that_is_full_nothing_is_lost(tmp_path: Path) -> None:
    async def test(server: JobService, folder: Path) -> None:
        ids = [(await server.submit(prompt)).id for prompt in "ab"]
        filler = fill(folder)
        with pytest.raises(StorageFull):
            await server.submit("c", pictures=PICTURE)
        for prompt in server.engine.prompts:
            server.engine.finish(prompt)
        filler.unlink()
        ended = [await server.jobs.finished(job, ANNE) for job in ids]
        assert all(record.done for record in ended)
        codes = {record.error.code for record in ended if record.error is not None}
        assert codes <= {"storage_full"}
        last = await server.submit("again", pictures=PICTURE)
        server.engine.finish("again")
        assert (await server.jobs.finished(last.id, ANNE)).status == "completed"

    with small_disk(tmp_path / "disk") as folder:
        run_jobs(folder, lambda server: test(server, folder))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("request", b"\xc1"),
        ("request", b"\x82\xa8requests\x90\xa4meta\x80"),
        ("request", "text"),
        ("files", b"\xc1"),
        ("kind", "poem"),
        ("status", "lost"),
        ("created_at", "yesterday"),
        ("created_at", 9e300),
        ("progress", -1),
        ("model", b"\xff"),
    ],
)
@pytest.mark.parametrize("status", ["queued", "completed"])
def test_a_row_that_can_not_be_read_is_a_failed_job_and_the_others_are_resumed(
    tmp_path: Path, column: str, value: Any, status: str
) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        ids = [(await killed.submit(prompt)).id for prompt in "abcd"]
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other, other:
            for name, given in (("status", status), (column, value)):
                other.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (given, ids[1]))
        following = JobService(tmp_path)
        await following.up()
        assert following.engine.prompts == ["a", "c", "d"]
        for server in (following, killed):
            page = await server.jobs.page(ANNE, order="asc")
            assert [record.id for record in page.records] == ids
        broken = await in_ledger(following, ids[1])
        ended = status == "completed" and column != "status"
        assert broken.status == ("completed" if ended else "failed")
        assert broken.error is not None
        assert f"{column}: " in broken.error.message
        for prompt in "acd":
            following.engine.finish(prompt)
        for job in (ids[0], *ids[2:]):
            assert (await following.jobs.finished(job, ANNE)).status == "completed"
        await following.jobs.delete(ids[1], ANNE)
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_a_file_that_can_not_be_removed_keeps_no_job_from_being_resumed(tmp_path: Path) -> None:
    async def first(server: JobService) -> None:
        await server.submit("a")
        (tmp_path / "pictures" / "folder").mkdir()

    async def second(server: JobService) -> None:
        assert server.engine.prompts == ["a"]

    run_jobs(tmp_path, first)
    run_jobs(tmp_path, second)


@pytest.mark.parametrize("error", [ValueError("no such codec"), MemoryError(), OSError(5, "io")])
def test_a_result_that_can_not_be_encoded_fails_its_job_with_the_reason(
    tmp_path: Path, error: Exception
) -> None:
    def render(*_: Any) -> dict[str, bytes]:
        raise error

    async def test(server: JobService) -> None:
        server.jobs._runner.render = render
        job = (await server.submit("a")).id
        server.engine.finish("a")
        ended = await server.jobs.finished(job, ANNE)
        assert (ended.status, ended.error and ended.error.code) == ("failed", "generation_failed")
        assert f"{type(error).__name__}: {error}" in str(ended.error)

    run_jobs(tmp_path, test)


def test_an_error_that_can_not_be_encoded_ends_its_job(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        job = (await server.submit("a")).id
        server.engine.fail("a", OutOfMemory("no room for \ud800"))
        ended = await server.jobs.finished(job, ANNE)
        assert ended.error is not None
        assert ended.error.message == "no room for \\ud800"

    run_jobs(tmp_path, test)


def test_a_job_whose_engine_was_stopped_by_another_is_run_by_the_next(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        job = (await server.submit("a")).id
        await settle()
        server.engine.die(EngineNotReady("the engine was stopped"))
        await settle()
        assert not (await in_ledger(server, job)).done
        server.engine = FakeEngine(server.engine.model)
        await server.up()
        server.engine.finish("a")
        assert (await server.jobs.finished(job, ANNE)).status == "completed"

    run_jobs(tmp_path, test)


@pytest.mark.parametrize("owner", [None, "anne"])
@pytest.mark.parametrize("kind", [None, "image"])
def test_pages_are_read_in_order_and_not_sorted(
    tmp_path: Path, owner: str | None, kind: Any
) -> None:
    with contextlib.closing(SqliteLedger(tmp_path / "jobs.sqlite")) as ledger:
        asked: list[str] = []
        ledger._reader.set_trace_callback(asked.append)
        ledger.page(owner, kind, None, 20, "desc")
        plan = ledger._reader.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
    assert not any("TEMP B-TREE" in row["detail"] for row in plan)


def damaged(path: Path) -> None:
    """A ledger with a page of noise in the middle."""

    async def test(server: JobService) -> None:
        for number in range(40):
            await server.submit(str(number), meta={"padding": "x" * 2000})

    run_jobs(path, test)
    with contextlib.closing(sqlite3.connect(path / "jobs.sqlite")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (path / "jobs.sqlite").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def test_a_damaged_ledger_is_refused_at_the_start(tmp_path: Path) -> None:
    damaged(tmp_path)
    with pytest.raises(InvalidRequest, match=r"jobs\.sqlite can't be used: .*(damaged|malformed)"):
        SqliteLedger(tmp_path / "jobs.sqlite")


def in_the_way(folder: Path, name: str) -> None:
    """A file where a folder belongs, or the other way round."""
    if name in ("results", "pictures"):
        (folder / name).touch()
    else:
        (folder / name).mkdir()


@pytest.mark.parametrize("name", ["jobs.sqlite", "lock", "secret", "results", "pictures"])
def test_what_is_in_the_way_in_the_data_folder_is_named(tmp_path: Path, name: str) -> None:
    in_the_way(tmp_path, name)
    with pytest.raises(InvalidRequest, match=name), contextlib.closing(DataFolder(tmp_path)):
        jobs.Jobs.in_folder(tmp_path, Service(ServerArgs()), ServerArgs())


@pytest.mark.parametrize("path", ["file", "file/below", "nul\0", "x" * 300, "/proc/data"])
def test_a_data_folder_that_can_not_be_is_a_mistake_of_use(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["serve", "--port", "0", "--data-dir", path]) == 2
    assert "--data-dir=" in capsys.readouterr().err


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def everything_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): mode(path) for path in folder.rglob("*")}


def test_all_of_the_data_folder_is_its_users_own_also_what_was_not(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def test(server: JobService) -> None:
        done = await server.submit("a")
        server.engine.finish("a")
        await server.jobs.finished(done.id, ANNE)
        await server.submit("b", BOB, pictures=PICTURE)
        await asyncio.to_thread(server.jobs._sweep)
        found = everything_of(folder)
        assert {"lock", "clock", "secret", "jobs.sqlite", "jobs.sqlite-wal"} < set(found)
        assert len(found) >= 9
        for name, given in found.items():
            assert given == (0o700 if name in ("results", "pictures") else 0o600), name

    umask = os.umask(0o022)
    try:
        for _ in range(2):
            with contextlib.closing(DataFolder(folder)):
                assert mode(folder) == 0o700
                run_jobs(folder, test)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
    finally:
        os.umask(umask)


def test_what_is_not_ours_in_a_data_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").touch(0o644)
    (tmp_path / "lock").touch(0o644)
    DataFolder(tmp_path).close()
    assert (mode(tmp_path), mode(tmp_path / "theirs")) == (0o755, 0o644)
    assert mode(tmp_path / "lock") == 0o600
