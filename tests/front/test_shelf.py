"""Results of ended jobs: kept until deleted or beyond the quota, starred ones longest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from job_service import ADMIN, ANNE, BOB, JobService, in_ledger

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import NotFound
from multimodal_gen.serving.owner import Owner, digest_of
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.eviction import StorageUse, in_order
from multimodal_gen.serving.storage.results import Results

YEAR = 365 * 86400.0


def shelf_test(test: Callable[[JobService], Awaitable[None]], folder: Path, **given: Any) -> None:
    async def whole() -> None:
        server = JobService(folder, args=ServerArgs(**given))
        await server.up()
        await test(server)
        await server.stop()

    asyncio.run(whole())


async def made(server: JobService, prompt: str, n: int = 1, owner: Owner = ANNE) -> JobRecord:
    params = SamplingParams(prompt=prompt, num_outputs_per_prompt=n)
    job = await server.jobs.submit("image", params, owner=owner)
    while prompt in server.engine.prompts:
        server.engine.finish(prompt)
    return await server.jobs.finished(job.id, owner)


async def star(server: JobService, record: JobRecord, index: int = 0, **more: Any) -> JobRecord:
    given = {"owner": ANNE, "starred": True, **more}
    return await asyncio.to_thread(server.jobs.shelf.star, record.id, index, **given)


def stored(folder: Path) -> set[str]:
    return {path.name.partition("@")[2] for path in (folder / "results").iterdir()}


def test_results_are_kept_for_as_long_as_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: JobService) -> None:
        record = await made(server, "a")
        now = server.jobs._clock.now()
        monkeypatch.setattr(server.jobs._clock, "now", lambda: now + YEAR)
        monkeypatch.setattr(server.jobs.results, "_clock", lambda: now + YEAR)
        await asyncio.to_thread(server.jobs._sweep)
        kept = await server.jobs.get(record.id, ANNE)
        assert kept.expires_at is None
        assert server.jobs.results.read(kept.files[0], ANNE.name)

    shelf_test(test, tmp_path)


def test_a_time_can_be_set_after_which_results_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: JobService) -> None:
        record = await star(server, await made(server, "a"))
        assert record.completed_at is not None
        assert record.expires_at == pytest.approx(record.completed_at + 60)
        now = server.jobs._clock.now()
        for clock in (server.jobs.results, server.jobs._clock):
            name = "_clock" if isinstance(clock, Results) else "now"
            monkeypatch.setattr(clock, name, lambda: now + 61)
        await asyncio.to_thread(server.jobs._sweep)
        assert not stored(tmp_path)
        assert await server.jobs.get(record.id, ANNE)
        monkeypatch.setattr(server.jobs._clock, "now", lambda: now + YEAR)
        await asyncio.to_thread(server.jobs._sweep)
        with pytest.raises(NotFound):
            await server.jobs.get(record.id, ANNE)

    shelf_test(test, tmp_path, result_ttl=60.0)


def test_a_time_that_is_no_longer_set_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[JobRecord] = []

    async def first(server: JobService) -> None:
        records.append(await made(server, "a"))

    async def then(server: JobService) -> None:
        now = server.jobs._clock.now()
        monkeypatch.setattr(server.jobs._clock, "now", lambda: now + 3600)
        await asyncio.to_thread(server.jobs._sweep)
        assert (await server.jobs.get(records[0].id, ANNE)).expires_at is None

    shelf_test(first, tmp_path, result_ttl=86400.0)
    shelf_test(then, tmp_path)


def test_starred_results_go_last(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        first, second = await made(server, "a"), await made(server, "b")
        await star(server, first)
        size = server.jobs.shelf.use(ANNE).used // 2
        server.jobs.results._quota = int(2.5 * size)  # type: ignore[attr-defined]
        third = await made(server, "c")
        assert stored(tmp_path) == {*first.files, *third.files}
        assert second.files[0] not in stored(tmp_path)
        server.jobs.results._quota = int(1.5 * size)  # type: ignore[attr-defined]
        fourth = await made(server, "d")
        assert stored(tmp_path) == {*fourth.files}

    shelf_test(test, tmp_path)


def test_a_job_whose_results_went_is_known_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: JobService) -> None:
        record = await made(server, "a")
        server.jobs.results._drop(record.files[0])  # type: ignore[attr-defined]
        now, days = server.jobs._clock.now(), 0

        def later() -> float:
            return now + 3600 + days * 86400

        monkeypatch.setattr(server.jobs._clock, "now", later)
        await asyncio.to_thread(server.jobs._sweep)
        assert (await server.jobs.get(record.id, ANNE)).expires_at == pytest.approx(later())
        days = 6
        await asyncio.to_thread(server.jobs._sweep)
        assert await server.jobs.get(record.id, ANNE)
        days = 8
        await asyncio.to_thread(server.jobs._sweep)
        with pytest.raises(NotFound):
            await server.jobs.get(record.id, ANNE)

    shelf_test(test, tmp_path)


def test_one_output_is_deleted_and_its_siblings_stay(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        shelf = server.jobs.shelf
        record = await made(server, "a", 3)
        await star(server, record, 1)
        await star(server, record, 2)
        now = await asyncio.to_thread(shelf.remove_output, record.id, 1, ANNE)
        assert [now.has(index) for index in range(4)] == [True, False, True, False]
        assert now.starred == (2,)
        assert stored(tmp_path) == {record.files[0], record.files[2]}
        assert await in_ledger(server, record.id) == now
        for again in (1, 3, -1):
            with pytest.raises(NotFound):
                await asyncio.to_thread(shelf.remove_output, record.id, again, ANNE)
        for index in (0, 2):
            await asyncio.to_thread(shelf.remove_output, record.id, index, ANNE)
        assert not stored(tmp_path)
        with pytest.raises(NotFound):
            await server.jobs.get(record.id, ANNE)

    shelf_test(test, tmp_path)


def test_stars_and_deletions_are_their_owners(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await made(server, "a", 2)
        with pytest.raises(NotFound):
            await star(server, record, owner=BOB)
        with pytest.raises(NotFound):
            await asyncio.to_thread(server.jobs.shelf.remove_output, record.id, 0, BOB)
        assert (await star(server, record, 1, owner=ADMIN)).starred == (1,)
        assert (await star(server, record, 1, starred=False)).starred == ()
        running = await server.submit("b")
        with pytest.raises(NotFound, match="it is queued"):
            await star(server, running)

    shelf_test(test, tmp_path)


def test_stars_and_deletions_outlive_a_killed_server(tmp_path: Path) -> None:
    async def test() -> None:
        killed = JobService(tmp_path)
        await killed.up()
        record = await made(killed, "a", 3)
        await star(killed, record, 2)
        await asyncio.to_thread(killed.jobs.shelf.remove_output, record.id, 0, ANNE)
        following = JobService(tmp_path)  # nothing of the first was closed
        await following.up()
        now = await following.jobs.get(record.id, ANNE)
        assert (now.files, now.starred) == (record.files[1:], (2,))
        assert stored(tmp_path) == {*record.files[1:]}
        await following.stop()
        await killed.stop()

    asyncio.run(test())


def test_a_deletion_that_was_cut_short_can_be_asked_for_again(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        record = await made(server, "a", 2)
        server.jobs.results.remove(record.files[0], "anne")  # and then it was killed
        now = await asyncio.to_thread(server.jobs.shelf.remove_output, record.id, 0, ANNE)
        assert now.files == record.files[1:]

    shelf_test(test, tmp_path)


def test_changes_are_told_with_a_digest_of_the_owner(tmp_path: Path) -> None:
    async def test(server: JobService) -> None:
        heard: list[tuple[str, str]] = []
        record = await made(server, "a", 2)
        server.jobs.on_changed(lambda *change: heard.append(change))
        await star(server, record)
        await asyncio.to_thread(server.jobs.shelf.remove_output, record.id, 0, ANNE)
        await server.jobs.delete(record.id, ANNE)
        assert heard == 3 * [(record.id, digest_of("anne"))]

    shelf_test(test, tmp_path)


def names(*jobs: str) -> dict[str, int]:
    return {f"{job}.png": 10 for job in jobs}


def test_what_goes_next_is_told_before_the_quota_is_reached() -> None:
    sizes = names("a-0", "b-0", "c-0", "d-0", "e-0")
    assert not StorageUse.of(sizes, 100, ()).next
    assert StorageUse.of(sizes, 55, ()).next == ("a-0",)
    assert StorageUse.of(sizes, 50, {"a-0"}).next == ("b-0",)
    assert StorageUse.of(sizes, 40, {"a-0", "c-0"}).next == ("b-0", "d-0")
    assert StorageUse.of({"0.png": 60, **sizes}, 100, ()).next == ()  # of no job


def test_files_of_an_output_go_together() -> None:
    files = ["a-0.mp4", "a-0.webp", "a-1.mp4", "a-1.webp", "0f.png", "b-0.png"]
    assert in_order(files, {"a-0"}) == [
        ["a-1.mp4", "a-1.webp"],
        ["0f.png"],
        ["a-0.mp4", "a-0.webp"],
    ]
