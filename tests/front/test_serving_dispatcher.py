"""Who goes next, and what becomes of requests whose engine dies. No engine is real here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_engine import FakeEngine, settle

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    GenerationFailed,
    QueueFull,
)
from multimodal_gen.serving.dispatcher import QueueLimits
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Event, Made, Moved, Task
from multimodal_gen.serving.ticket import MAX_REPLAYS

ANNE, BOB = Owner("anne"), Owner("bob")


class Front:
    """A service whose engines are the test's."""

    def __init__(self, **limits: Any) -> None:
        self.service = Service(ServerArgs(), QueueLimits(**limits))
        self.engine = FakeEngine()

    def up(self) -> None:
        self.engine = FakeEngine()
        self.service.engine_up(self.engine)  # type: ignore[arg-type]

    async def die(self) -> None:
        self.engine.die()
        await settle()
        assert self.engine.died is not None
        self.service.engine_lost(self.engine.died)

    async def replace(self) -> None:
        await self.die()
        self.up()
        await settle()

    def ask(self, prompt: str, owner: Owner = ANNE, n: int = 1, **params: Any) -> Task:
        given = SamplingParams(prompt=prompt, num_outputs_per_prompt=n, seed=5, **params)
        return self.service.start(given, owner=owner)


def run(test: Callable[[Front], Awaitable[None]], **limits: Any) -> None:
    async def whole() -> None:
        front = Front(**limits)
        front.up()
        await test(front)

    asyncio.run(whole())


async def error_of(task: Task) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await task.wait()
    return caught.value


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


def test_a_newcomer_goes_before_what_others_have_in_the_engines_queue() -> None:
    async def test(front: Front) -> None:
        for index in range(4):
            front.ask(f"anne {index}")
        front.engine.step("anne 0", 3)
        for index in range(1, 4):
            front.engine.step(f"anne {index}", 0, position=index)
        await settle()
        front.ask("bob", BOB)
        await settle()
        assert front.engine.prompts[:2] == ["anne 0", "bob"]
        assert sorted(front.engine.prompts[2:]) == ["anne 1", "anne 2", "anne 3"]

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

    run(test, concurrency={"anne": 1})


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


def test_what_an_engine_had_when_it_died_goes_to_the_next_unchanged() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a", n=2)
        sent = dict(front.engine.alive)
        front.engine.step("a", 7)
        await settle()
        await front.die()
        assert not task.done
        assert task.progress.step == 0
        front.up()
        assert set(front.engine.alive) <= set(sent)
        while front.engine.alive:
            (request_id, req) = next(iter(front.engine.alive.items()))
            assert req == sent[request_id]
            front.engine.finish("a")
            await settle()
        assert [output.seed for output in await task.wait()] == [5, 6]

    run(test)


def test_requests_are_taken_while_an_engine_is_replaced_but_not_when_that_fails() -> None:
    async def test(front: Front) -> None:
        await front.die()
        task = front.ask("meanwhile")
        assert front.service.health().phase == "restarting"
        front.service.engine_failed(EngineDied("rank 0 was killed"), for_good=False)
        with pytest.raises(EngineNotReady, match="rank 0 was killed"):
            front.ask("later")
        front.up()
        assert front.service.health().restarts == 1
        front.engine.finish("meanwhile")
        await task.wait()

    run(test)


def test_what_ends_the_engine_twice_fails_and_its_neighbours_do_not() -> None:
    async def test(front: Front) -> None:
        tasks = {prompt: front.ask(prompt) for prompt in ("a", "poison", "b")}
        for prompt in tasks:
            front.engine.step(prompt, 4)
        await settle()
        await front.replace()
        assert front.engine.prompts == ["a"], "suspects go one by one"
        innocent = front.ask("newcomer")
        front.engine.step("a", 5)
        await settle()
        assert front.engine.prompts == ["a", "newcomer", "poison"]
        front.engine.step("poison", 4)
        front.engine.step("a", 6)
        await settle()
        await front.replace()
        error = await error_of(tasks["poison"])
        assert isinstance(error, EngineDied)
        assert "killed the engine twice" in str(error)
        for prompt in ("a", "b", "newcomer"):
            while prompt not in front.engine.prompts:
                (suspect,) = front.engine.prompts
                front.engine.step(suspect, 19)
                await settle()
            front.engine.finish(prompt)
            await settle()
        for task in (tasks["a"], tasks["b"], innocent):
            await task.wait()

    run(test)


def test_a_request_is_not_replayed_for_ever() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a")
        for step in (9, *range(MAX_REPLAYS)):
            front.engine.step("a", step)
            await settle()
            await front.replace()
        assert isinstance(await error_of(task), EngineDied)

    run(test)


def test_one_that_gets_further_each_time_is_replayed_until_it_is_done() -> None:
    async def test(front: Front) -> None:
        task = front.ask("a")
        for step in range(1, 3 * MAX_REPLAYS):
            front.engine.step("a", step)
            await settle()
            await front.replace()
        front.engine.finish("a")
        await task.wait()

    run(test)


def test_what_never_ran_is_no_suspect() -> None:
    async def test(front: Front) -> None:
        for prompt in ("a", "b"):
            front.ask(prompt)
            front.engine.step(prompt, 0, position=3)
        await settle()
        await front.replace()
        assert front.engine.prompts == ["a", "b"]

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
