"""Who goes next, and what tasks are told. No engine is real here."""

from __future__ import annotations

import asyncio

import pytest
from dispatched import BOB, Front, error_of, run
from fake_engine import settle

from multimodal_gen.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineNotReady,
    GenerationFailed,
    QueueFull,
)
from multimodal_gen.serving.owner import Share
from multimodal_gen.serving.task import Event, Made, Moved


def test_outputs_come_in_order_whichever_is_first() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", n=2)
        first, second = front.engine.alive.values()
        for req in (second, first):
            front.engine.alive = {req.id: req, **front.engine.alive}
            front.engine.finish("a")
            await settle()
        assert [output.seed for output in await task.wait()] == [5, 6]
        assert task.status == "completed"
        assert not front.service.tasks

    run(test)


def test_what_ends_one_output_ends_the_task_and_its_siblings() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", n=3)
        front.engine.fail("a", GenerationFailed("a reason"))
        await settle()
        assert str(await error_of(task)) == "a reason"
        assert task.status == "failed"
        assert not front.engine.alive

    run(test)


def test_owners_take_turns_however_much_one_of_them_asked_before() -> None:
    async def test(front: Front) -> None:
        for index in range(6):
            front.ask(f"anne {index}")
        front.ask("bob 0", BOB)
        front.ask("bob 1", BOB)
        served = []
        while front.engine.alive:
            (prompt,) = front.engine.prompts
            served.append(prompt)
            front.engine.finish(prompt)
            await settle()
        assert served[:5] == ["anne 0", "bob 0", "anne 1", "bob 1", "anne 2"]
        assert served[5:] == ["anne 3", "anne 4", "anne 5"]

    run(test, in_flight=1)


def test_a_newcomer_is_sent_although_others_fill_the_engine() -> None:
    async def test(front: Front) -> None:
        for index in range(10):
            front.ask(f"anne {index}")
        assert len(front.engine.prompts) == 7
        front.ask("bob 0", BOB)
        front.ask("bob 1", BOB)
        assert front.engine.prompts[7:] == ["bob 0"]

    run(test, in_flight=8, shares={"anne": Share(), "bob": Share()})


def test_an_owner_that_is_the_only_one_may_fill_the_engine() -> None:
    async def test(front: Front) -> None:
        for index in range(10):
            front.ask(f"anne {index}")
        assert len(front.engine.prompts) == 8

    run(test, in_flight=8)


def test_an_owner_has_no_more_in_flight_than_allowed() -> None:
    async def test(front: Front) -> None:
        for index in range(3):
            front.ask(f"anne {index}")
        front.ask("bob", BOB)
        await settle()
        assert front.engine.prompts == ["anne 0", "bob"]
        front.engine.finish("anne 0")
        await settle()
        assert front.engine.prompts == ["bob", "anne 1"]

    run(test, shares={"anne": Share(max_concurrent=1)})


def test_higher_priority_goes_first() -> None:
    async def test(front: Front) -> None:
        front.ask("first")
        front.ask("low", priority="low")
        front.ask("high", priority="high")
        front.engine.finish("first")
        await settle()
        assert front.engine.prompts == ["high"]

    run(test, in_flight=1)


def test_the_queue_is_bounded_and_a_task_is_taken_whole_or_not_at_all() -> None:
    async def test(front: Front) -> None:
        front.ask("a", n=3)
        with pytest.raises(QueueFull):
            front.ask("b", n=2)
        assert front.engine.prompts == ["a", "a", "a"]
        front.ask("c")

    run(test, capacity=4)


def test_a_task_is_cancelled_wherever_it_is() -> None:
    async def test(front: Front) -> None:
        running, waiting = front.ask("running"), front.ask("waiting")
        front.engine.step("running", 2)
        await settle()
        for task in (waiting, running):
            task.cancel()
            assert isinstance(await error_of(task), Cancelled)
        await settle()
        assert not front.engine.alive
        assert (front.service.health().running, front.service.health().waiting) == (0, 0)

    run(test, in_flight=1)


def test_a_deadline_that_passes_in_the_queue_is_told() -> None:
    async def test(front: Front) -> None:
        first, late = front.ask("first"), front.ask("late", deadline_s=0.001)
        await asyncio.sleep(0.01)
        front.engine.finish("first")
        await first.wait()
        assert isinstance(await error_of(late), DeadlineExceeded)

    run(test, in_flight=1)


def test_those_who_wait_know_their_place() -> None:
    async def test(front: Front) -> None:
        tasks = [front.ask(str(index)) for index in range(3)]
        front.engine.step("0", 1)
        await settle()
        assert [task.progress.queue_position for task in tasks] == [0, 1, 2]
        assert [task.status for task in tasks] == ["in_progress", "queued", "queued"]

    run(test, in_flight=1)


def test_any_number_follow_and_the_late_hear_how_things_stand() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", n=2)

        async def follow() -> list[Event]:
            return [event async for event in task.events()]

        early = asyncio.create_task(follow())
        await settle()
        front.engine.step("a", 7)
        await settle()
        front.engine.finish("a")
        await settle()
        late = asyncio.create_task(follow())
        await settle()
        front.engine.finish("a")
        heard = await asyncio.gather(early, late)
        for events in heard:
            assert [event.index for event in events if isinstance(event, Made)] == [0, 1]
        first = heard[1][0]
        assert isinstance(first, Moved)
        assert first.progress.step == 20

    run(test)


def test_who_waits_when_the_server_stops_is_told_so() -> None:
    async def test(front: Front) -> None:
        tasks = [front.ask("running"), front.ask("waiting")]
        await front.service.drain(0.01)
        with pytest.raises(EngineNotReady, match="stopping"):
            front.ask("late")
        front.service.stop()
        for task in tasks:
            assert isinstance(await error_of(task), EngineNotReady)

    run(test, in_flight=1)


def test_draining_waits_for_what_is_here() -> None:
    async def test(front: Front) -> None:
        tasks = [front.ask("running"), front.ask("waiting")]
        draining = asyncio.create_task(front.service.drain(60))
        await settle()
        for prompt in ("running", "waiting"):
            assert not draining.done()
            front.engine.finish(prompt)
            await settle()
        await draining
        for task in tasks:
            await task.wait()

    run(test, in_flight=1)
