"""What becomes of the requests of one call from Python. No engine is real here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import pytest
from fake_engine import FakeEngine, settle

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.calls import generate_one, run_all, stream_one
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.loop_thread import LoopThread
from multimodal_gen.errors import EngineDied, OutOfMemory, QueueFull

TWO = SamplingParams(prompt="a", num_outputs_per_prompt=2, num_inference_steps=10, seed=5)


def run(test: Callable[[FakeEngine, SchedulerClient], Awaitable[None]]) -> None:
    engine = FakeEngine()
    asyncio.run(asyncio.wait_for(test(engine, cast(SchedulerClient, engine)), 30))


def test_an_output_that_fails_ends_the_others() -> None:
    async def test(engine: FakeEngine, client: SchedulerClient) -> None:
        call = asyncio.create_task(generate_one(client, TWO))
        await settle()
        engine.fail("a", OutOfMemory("too large"))
        with pytest.raises(OutOfMemory):
            await call
        assert not engine.alive

    run(test)


def test_a_cancelled_call_cancels_its_requests_and_leaves_no_task() -> None:
    async def test(engine: FakeEngine, client: SchedulerClient) -> None:
        before = asyncio.all_tasks()
        call = asyncio.create_task(generate_one(client, TWO))
        await settle()
        assert len(engine.alive) == 2
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not engine.alive
        assert asyncio.all_tasks() == before

    run(test)


def test_an_engine_that_is_gone_refuses_the_call() -> None:
    async def test(engine: FakeEngine, client: SchedulerClient) -> None:
        engine.die()
        with pytest.raises(EngineDied):
            await generate_one(client, TWO)

    run(test)


def test_progress_adds_up_and_shows_each_preview_once() -> None:
    async def test(engine: FakeEngine, client: SchedulerClient) -> None:
        async with aclosing(stream_one(client, TWO, previews=True)) as events:
            following = asyncio.create_task(anext(events))
            await settle()
            engine.show("a", 3)
            shown = await following
            assert isinstance(shown, Progress)
            assert (shown.step, shown.total, shown.eta) == (3, 20, 1.0)
            assert shown.preview is not None

            engine.step("a", 4)
            later = await anext(events)
            assert isinstance(later, Progress)
            assert (later.step, later.preview) == (4, None)

            engine.finish("a")
            engine.finish("a")
            result = [event async for event in events][-1]
            assert isinstance(result, GenerationResult)
            assert result.seeds == [5, 6]
            assert result.params.num_outputs_per_prompt == 2

    run(test)


def test_of_a_list_what_finds_the_queue_full_is_submitted_again() -> None:
    async def test(engine: FakeEngine, client: SchedulerClient) -> None:
        calls = asyncio.create_task(run_all([TWO], lambda _: generate_one(client, TWO)))
        await settle()
        engine.fail("a", QueueFull("full", 0.01))
        await settle()
        assert not engine.alive
        while len(engine.alive) < 2:
            await asyncio.sleep(0.01)
        engine.finish("a")
        engine.finish("a")
        (result,) = await calls
        assert isinstance(result, GenerationResult)

    run(test)


def test_a_stream_that_is_open_at_the_end_is_closed_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left: list[str] = []

    async def inner() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            left.append("inner")

    async def outer() -> AsyncGenerator[int, None]:
        async with aclosing(inner()) as numbers:
            async for number in numbers:
                yield number
        left.append("outer")

    async def first(stream: AsyncGenerator[int, None]) -> int:
        return await anext(stream)

    loop, stream = LoopThread("test"), outer()
    loop.hold(stream)
    assert loop.run(first(stream)) == 1
    loop.close()
    assert left == ["inner"]
    assert not caplog.records
