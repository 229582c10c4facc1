"""Several fronts over one ledger in PostgreSQL: any of them answers for any job."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import settle
from fastapi import Request
from job_service import ANNE, BOB, INPUTS, PICTURE, JobService, same
from postgres_server import Database
from webhook_receiver import SECRET, Receiver

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.jobs.feed import TICK_S, JobFeed, StartedTasks
from multimodal_gen.errors import (
    Conflict,
    EngineDied,
    GenerationFailed,
    NotFound,
    QueueFull,
    StorageUnavailable,
)
from multimodal_gen.serving import jobs
from multimodal_gen.serving.fronts import shared
from multimodal_gen.serving.fronts.shared import SharedFront
from multimodal_gen.serving.owner import Owner, Share
from multimodal_gen.serving.storage.object_spool import ObjectSpool
from multimodal_gen.serving.storage.postgres.ledger import Renewed
from multimodal_gen.serving.task import Moved

Test = Callable[..., Awaitable[None]]


@pytest.fixture
def args(database: Database, tmp_path: Path) -> ServerArgs:
    return ServerArgs(ledger=database.schema(), results=f"file://{tmp_path}/shared")


class Front(JobService):
    """One of several fronts, over an engine of its own."""

    def __init__(self, args: ServerArgs, **limits: int) -> None:
        super().__init__(Path(), args=args, **limits)
        front = self.jobs._front
        assert isinstance(front, SharedFront)
        self.front = front
        self.beats = 0
        renewed = front.renewed

        def count(now: Renewed, trusted: bool) -> None:
            renewed(now, trusted)
            self.beats += 1

        front.renewed = count  # type: ignore[method-assign]

    async def fall_silent(self) -> None:
        """What a stopped process does: nothing is renewed, taken or heard any more."""
        for loop in self.front._loops:
            loop.cancel()
        assert self.front._heartbeat is not None
        await self.front._heartbeat.close()

    async def wake_up(self) -> None:
        self.front._heartbeat = self.front._taking = None
        await self.front.resume()

    async def has(self, prompt: str, *, absent: bool = False) -> None:
        """Until its engine has a request, or hasn't."""
        await until(lambda: (prompt in self.engine.prompts) is not absent)


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(args: ServerArgs, count: int, **limits: int) -> AsyncIterator[list[Front]]:
    fronts = [Front(args, **limits) for _ in range(count)]
    try:
        for front in fronts:
            await front.up()
        yield fronts
    finally:
        for front in fronts:
            await front.stop()


def with_fronts(args: ServerArgs, count: int, test: Test, **limits: int) -> None:
    async def whole() -> None:
        async with running(args, count, **limits) as fronts:
            await test(*fronts)

    asyncio.run(whole())


async def holder(prompt: str, *fronts: Front) -> tuple[Front, Front]:
    """The front that runs a job, and another."""
    await until(lambda: any(prompt in front.engine.prompts for front in fronts))
    (own,) = [front for front in fronts if prompt in front.engine.prompts]
    return own, next(front for front in fronts if front is not own)


def test_a_job_accepted_by_one_front_is_answered_for_by_all(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a", pictures=PICTURE, meta={"size": "auto"})
        own, other = await holder("a", one, two)
        (sent,) = own.engine.pictures.values()
        assert np.array_equal(sent[0], PICTURE["image"])
        own.engine.step("a", 10)
        await until(lambda: other.jobs.task(job.id) and other.jobs.task(job.id).progress.step == 10)
        now = await other.jobs.get(job.id, ANNE)
        assert (now.status, now.progress, now.meta) == ("in_progress", 49, {"size": "auto"})
        own.engine.finish("a")
        done = await other.jobs.finished(job.id, ANNE)
        assert (done.status, done.progress) == ("completed", 100)
        for front in (one, two):
            file = front.jobs.results.read(done.files[0], "anne")
            assert file.startswith(b"\x89PNG")
            assert front.jobs.results.link(done.files[0], "anne") == (
                one.jobs.results.link(done.files[0], "anne")
            )
            await until(lambda front=front: front.jobs.task(job.id) is None)
            assert [record.id for record in (await front.jobs.page(ANNE)).records] == [job.id]

    with_fronts(args, 2, test)


def test_stars_and_deletions_are_heard_of_on_all_fronts(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a")
        own, _ = await holder("a", one, two)
        own.engine.finish("a")
        await two.jobs.finished(job.id, ANNE)
        heard: list[str] = []
        two.jobs.on_changed(lambda changed, owner: heard.append(changed))
        star = partial(one.jobs.shelf.star, job.id, 0, ANNE, starred=True)
        await asyncio.to_thread(star)
        await until(lambda: heard == [job.id])
        assert (await two.jobs.get(job.id, ANNE)).starred == (0,)
        await asyncio.to_thread(two.jobs.shelf.remove_output, job.id, 0, ANNE)
        await until(lambda: len(heard) == 2)
        with pytest.raises(NotFound):
            await one.jobs.get(job.id, ANNE)

    with_fronts(args, 2, test)


def test_a_job_is_followed_from_another_front_to_its_end(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a")
        own, other = await holder("a", one, two)
        own.engine.step("a", 5)
        await until(lambda: other.jobs.task(job.id))
        steps: list[int] = []

        async def follow() -> None:
            async for event in other.jobs.follow(job.id, ANNE):
                assert isinstance(event, Moved)
                steps.append(event.progress.step)

        following = asyncio.create_task(follow())
        await until(lambda: 5 in steps)
        own.engine.fail("a", GenerationFailed("it went wrong"))
        with pytest.raises(GenerationFailed, match="it went wrong"):
            await following

    with_fronts(args, 2, test)


def test_any_front_cancels_and_deletes(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        for act in ("cancel", "delete"):
            job = await one.submit(act)
            own, other = await holder(act, one, two)
            own.engine.step(act, 3)
            await getattr(other.jobs, act)(job.id, ANNE)
            await own.has(act, absent=True)
            if act == "cancel":
                assert (await own.jobs.get(job.id, ANNE)).status == "cancelled"
            else:
                with pytest.raises(NotFound):
                    await own.jobs.get(job.id, ANNE)

    with_fronts(args, 2, test)


def test_a_job_whose_images_are_still_being_read_is_cancelled_from_another_front(
    args: ServerArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read = ObjectSpool.read

    def slowly(*given: Any) -> Any:
        reading.set()
        assert go_on.wait(30)
        return read(*given)

    monkeypatch.setattr(ObjectSpool, "read", slowly)

    async def test(one: Front) -> None:
        other = Front(args)  # without an engine, so that it takes no jobs
        other.jobs.watch()
        job = await one.submit("a", pictures=PICTURE)
        await asyncio.to_thread(reading.wait, 30)
        cancelling = asyncio.create_task(other.jobs.cancel(job.id, ANNE))
        await until(lambda: job.id in one.front._leases)
        beats = one.beats
        await until(lambda: one.beats > beats + 1)
        go_on.set()
        assert (await cancelling).status == "cancelled"
        await other.stop()

    with_fronts(args, 1, test)


def test_a_job_that_waits_in_the_ledger_is_cancelled_without_an_engine(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        running = [await one.submit(f"running {number}") for number in range(2)]
        await until(lambda: one.engine.prompts and two.engine.prompts)
        waiting = await one.submit("waiting", pictures=PICTURE)
        assert (await two.jobs.cancel(waiting.id, ANNE)).status == "cancelled"
        assert len(running) == len(one.engine.prompts + two.engine.prompts)

    with_fronts(args, 2, test, in_flight=1)


def test_a_key_used_on_two_fronts_is_one_job(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        sent = [
            front.submit("a", idempotency_key="k", pictures=PICTURE)
            for front in (one, two)
            for _ in range(3)
        ]
        records = await asyncio.gather(*sent)
        assert len({record.id for record in records}) == 1
        with pytest.raises(Conflict):
            await two.submit("b", idempotency_key="k")
        assert (await two.submit("b", BOB, idempotency_key="k")).id != records[0].id

    with_fronts(args, 2, test)


def test_jobs_wait_in_the_ledger_and_not_in_a_full_front(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        names = [f"job {number}" for number in range(6)]
        for name in names:
            await one.submit(name)
        await until(lambda: one.engine.prompts and two.engine.prompts)
        assert (len(one.engine.prompts), len(two.engine.prompts)) == (1, 1)
        ended = 0
        while ended < len(names):
            for front in (one, two):
                for prompt in front.engine.prompts:
                    front.engine.finish(prompt)
                    ended += 1
            await asyncio.sleep(0.01)

        async def all_done() -> None:
            for record in (await two.jobs.page(ANNE)).records:
                assert (await two.jobs.finished(record.id, ANNE)).status == "completed"

        await all_done()

    with_fronts(args, 2, test, in_flight=1)


def test_a_front_that_fell_silent_is_replaced_and_coming_back_ends_nothing(
    args: ServerArgs,
) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a", pictures=INPUTS)
        own, other = await holder("a", one, two)
        own.engine.step("a", 10)
        await own.fall_silent()
        silent_at = time.monotonic()
        await other.has("a")
        print("taken over after", time.monotonic() - silent_at, "s")
        assert all(same(each, INPUTS) for each in other.engine.pictures.values())
        own.engine.finish("a")  # It doesn't know that the job isn't its own any more.
        await until(lambda: not own.jobs._runner.runs)
        assert (await other.jobs.get(job.id, ANNE)).status != "completed"
        await own.wake_up()
        other.engine.finish("a")
        done = await own.jobs.finished(job.id, ANNE)
        assert done.status == "completed"
        assert other.jobs.results.read(done.files[0], "anne")

    with_fronts(args, 2, test)


def test_a_front_that_lost_its_job_stops_it(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a")
        own, other = await holder("a", one, two)
        await own.fall_silent()
        await other.has("a")
        await own.wake_up()
        await own.has("a", absent=True)
        other.engine.fail("a", GenerationFailed("it went wrong"))
        ended = await own.jobs.finished(job.id, ANNE)
        assert (ended.status, ended.error and ended.error.message) == ("failed", "it went wrong")

    with_fronts(args, 2, test)


def test_a_front_that_stops_leaves_its_jobs_to_the_others_at_once(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a")
        own, other = await holder("a", one, two)
        own.engine.step("a", 3)
        await settle()
        await own.stop()
        await other.has("a")
        other.engine.finish("a")
        assert (await other.jobs.finished(job.id, ANNE)).status == "completed"

    with_fronts(args, 2, test)


def test_jobs_that_have_not_begun_leave_a_front_whose_engine_died(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        await one.submit("a")
        own, other = await holder("a", one, two)
        next(own.service.fleet.engines).engine_lost(EngineDied("rank 0 was killed"))
        await other.has("a")

    with_fronts(args, 2, test)


def test_the_queue_is_bounded_over_all_fronts(args: ServerArgs) -> None:
    small = ServerArgs(**{**vars(args), "max_queue_size": 2})

    async def test(one: Front, two: Front) -> None:
        for number in range(2):
            await one.submit(f"job {number}")
        await until(lambda: two.front._open.total() == 2)
        for front in (one, two):
            with pytest.raises(QueueFull, match="2 of at most 2"):
                await front.submit("another")

    with_fronts(small, 2, test, capacity=2)


def test_an_owner_has_its_share_of_the_places_of_all_fronts(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        for front in (one, two):
            front.service.grant({"anne": Share(), "bob": Share()})
        for number in range(3):
            await one.submit(f"job {number}")
        await until(lambda: two.front._open.total() == 3)
        with pytest.raises(QueueFull, match="other keys"):
            await two.submit("a fourth")
        await two.submit("of another", BOB)

    with_fronts(args, 2, test, capacity=6)


@pytest.mark.parametrize("counted", ["before it is stored", "after it was stored"])
@pytest.mark.parametrize("heard", ["before it is accepted", "after it was accepted"])
def test_a_job_is_counted_once_whenever_the_jobs_of_all_fronts_are_counted(
    args: ServerArgs, monkeypatch: pytest.MonkeyPatch, counted: str, heard: str
) -> None:
    async def test(one: Front) -> None:
        await one.fall_silent()
        ledger, loop = one.front._ledger, asyncio.get_running_loop()
        add, counts = ledger.add, list[Renewed]()

        def count() -> None:
            with ledger._connections.one() as db:
                counts.append(ledger.renew(db))

        def hear() -> None:
            one.front.renewed(counts.pop(), True)

        def store(*given: Any) -> Any:
            if counted == "before it is stored":
                count()
            stored = add(*given)
            if counted == "after it was stored":
                count()
            if heard == "before it is accepted":
                loop.call_soon_threadsafe(hear)
            return stored

        monkeypatch.setattr(ledger, "add", store)
        for number in range(1, 4):
            await one.submit(f"job {number}")
            if heard == "after it was accepted":
                hear()
            assert one.front._open == Counter(anne=number)

    with_fronts(args, 1, test)


def test_a_deadline_is_kept_by_jobs_that_wait_in_the_ledger(args: ServerArgs) -> None:
    async def test(one: Front) -> None:
        await one.submit("running")
        await one.has("running")
        late = SamplingParams(prompt="late", deadline_s=0.2)
        job = await one.jobs.submit("image", late, owner=ANNE)
        ended = await one.jobs.finished(job.id, ANNE)
        assert (ended.status, ended.error and ended.error.code) == ("failed", "deadline_exceeded")
        assert one.engine.prompts == ["running"]

    with_fronts(args, 1, test, in_flight=1)


def test_without_its_database_a_front_goes_on_with_what_runs_and_refuses_what_is_new(
    args: ServerArgs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)

    async def test(one: Front, two: Front) -> None:
        job = await one.submit("a")
        own, other = await holder("a", one, two)
        await asyncio.to_thread(database.stop)
        try:
            await until(lambda: own.jobs.trouble and other.jobs.trouble)
            own.engine.step("a", 3)
            own.engine.finish("a")
            for front in (one, two):
                with pytest.raises(StorageUnavailable) as caught:
                    await front.submit("b")
                assert caught.value.retry_after_s
                assert "host=" not in str(caught.value)
            with pytest.raises(StorageUnavailable):
                await own.jobs.get(job.id, ANNE)
            assert job.id in own.jobs._runner.runs
        finally:
            await asyncio.to_thread(database.start)
        for front in (own, other):
            await until(lambda front=front: front.jobs.trouble is None)
            done = await front.jobs.finished(job.id, ANNE)
            assert done.status == "completed"
        assert not other.engine.prompts

    with_fronts(args, 2, test)


def test_a_front_sees_the_jobs_that_were_there_before_it(args: ServerArgs) -> None:
    async def test(one: Front) -> None:
        job = await one.submit("a")
        await one.has("a")
        heard: list[str] = []
        late = Front(args)
        late.jobs.on_started(lambda task: heard.append(task.id))
        late.jobs.watch()  # Its engine is still loading.
        await until(lambda: job.id in late.jobs.alive)
        assert heard == [job.id]
        one.engine.finish("a")
        await until(lambda: job.id not in late.jobs.alive)
        await late.stop()

    with_fronts(args, 1, test)


def test_an_end_that_nobody_told_is_found(
    args: ServerArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multimodal_gen.serving.fronts import mirrors

    monkeypatch.setattr(mirrors, "QUIET_S", 0.0)
    monkeypatch.setattr(shared.SharedFront, "heard", lambda *_: None)

    async def test(one: Front) -> None:
        job = await one.submit("a")
        await one.has("a")
        late = Front(args)
        late.jobs.watch()
        await until(lambda: job.id in late.jobs.alive)
        one.engine.finish("a")
        await until(lambda: job.id not in late.jobs.alive)
        await late.stop()

    with_fronts(args, 1, test)


def test_a_renewal_that_was_asked_for_before_a_job_was_taken_says_nothing_of_it(
    args: ServerArgs,
) -> None:
    async def test(one: Front) -> None:
        await one.submit("a")
        await one.has("a")
        one.front.renewed(
            Renewed(0.0, held={}, open=Counter(), recent=frozenset(), waiting=Counter(), overdue=0),
            trusted=True,
        )
        await settle()
        assert one.engine.prompts == ["a"]

    with_fronts(args, 1, test)


def test_each_event_is_posted_once_by_whichever_front(args: ServerArgs) -> None:
    receiver = Receiver()
    told = ServerArgs(**{**vars(args), "webhook_url": receiver.url, "webhook_secret": SECRET})

    async def test(one: Front, two: Front) -> None:
        webhooks = [front.jobs.webhooks for front in (one, two)]
        telling = [asyncio.create_task(each.run()) for each in webhooks if each is not None]
        jobs = [await one.submit(f"job {number}") for number in range(8)]
        await until(lambda: len(one.engine.prompts + two.engine.prompts) == len(jobs))
        for front in (one, two):
            for prompt in front.engine.prompts:
                front.engine.finish(prompt)
        await receiver.heard(len(jobs))
        for task in telling:
            task.cancel()
            await asyncio.wait([task])
        assert not await asyncio.to_thread(one.front._ledger.claim_notices, 99, 0.0)
        heard = [event["data"]["id"] for event in receiver.events]
        assert sorted(heard) == sorted(job.id for job in jobs)

    with_fronts(told, 2, test)
    receiver.server.shutdown()
    receiver.server.server_close()


def test_a_stream_of_events_shows_jobs_of_other_fronts(args: ServerArgs) -> None:
    async def test(one: Front, two: Front) -> None:
        scope = {"type": "http", "headers": [], "path": "/", "server": ("localhost", 80)}
        for front in (one, two):
            started = StartedTasks()
            front.service.observers.append(started)
            front.jobs.on_started(started.started)
            front.feed = JobFeed(Request(scope), front.service, front.jobs, started)  # type: ignore[attr-defined]
        job = await one.submit("a", Owner())
        own, other = await holder("a", one, two)
        seen: list[str] = []

        async def follow() -> None:
            async for event in other.feed:  # type: ignore[attr-defined]
                seen.append(event.decode())

        following = asyncio.create_task(follow())
        await until(lambda: any("event: job\n" in event for event in seen))
        own.engine.step("a", 7)
        await until(lambda: any('"step": 7' in event for event in seen))
        own.engine.finish("a")
        await until(lambda: any('"status": "completed"' in event for event in seen))
        assert all(job.id in event for event in seen if "event: job" in event)
        following.cancel()
        await asyncio.wait([following])

    with_fronts(args, 2, test)


def test_a_stream_of_events_goes_on_after_the_database_was_away(
    args: ServerArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True

    async def test(front: Front) -> None:
        nonlocal away
        get = front.front._ledger.get

        def get_or_fail(*given: Any) -> Any:
            if away:
                raise StorageUnavailable("away")
            return get(*given)

        monkeypatch.setattr(front.front._ledger, "get", get_or_fail)
        scope = {"type": "http", "headers": [], "path": "/", "server": ("localhost", 80)}
        events = aiter(JobFeed(Request(scope), front.service, front.jobs, StartedTasks()))
        await front.submit("a", Owner())
        await until(lambda: front.engine.prompts == ["a"])
        assert b"event: server\n" in await anext(events)
        coming = asyncio.ensure_future(anext(events))
        await asyncio.wait([coming], timeout=3 * TICK_S)
        away = False
        assert b"event: job\n" in await coming
        away = True
        front.engine.finish("a")
        await until(lambda: not front.jobs.alive)
        away = False
        while b'"status": "completed"' not in await anext(events):
            pass

    with_fronts(args, 1, test)
