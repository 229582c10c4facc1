"""The queue's work for one event does not grow with the number of requests that wait, by count."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import CodeType, FrameType
from typing import Any

import pytest
from dispatched import Front, run
from fake_engine import settle

from multimodal_gen.serving.dispatch import places
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task

SIZES = (100, 1_000, 10_000)
OWNERS = [Owner(f"owner {index}") for index in range(5)]


class Counter:
    """Counts calls of functions, C functions included, and messages to tasks."""

    def __init__(self) -> None:
        self.calls = 0
        self.told = 0

    def __enter__(self) -> Counter:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, what: Any) -> None:
        self.calls += event in ("call", "c_call")
        code: CodeType = frame.f_code
        self.told += event == "call" and code is Task.receive.__code__


Event = Callable[[Front, list[Task]], Awaitable[None]]


async def finish(front: Front, tasks: list[Task]) -> None:
    front.engine.finish(front.engine.prompts[0])
    await settle()


async def progress(front: Front, tasks: list[Task]) -> None:
    front.engine.step(front.engine.prompts[0], 3)
    await settle()


async def put(front: Front, tasks: list[Task]) -> None:
    front.ask("another", OWNERS[0], deadline_s=60)
    await settle()


async def cancel(front: Front, tasks: list[Task]) -> None:
    tasks[len(tasks) // 2].cancel()
    await settle()


EVENTS: dict[str, Event] = {"end": finish, "progress": progress, "put": put, "cancel": cancel}


def work(event: Event, waiting: int) -> Counter:
    """What one event takes while so many wait."""
    counter = Counter()

    async def test(front: Front) -> None:
        tasks = [
            front.ask(str(index), OWNERS[index % 5], deadline_s=3600 + index % 7)
            for index in range(waiting)
        ]
        await settle()
        with counter:
            await event(front, tasks)

    run(test, capacity=20_000, in_flight=8)
    return counter


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_takes_as_many_operations_and_messages_however_many_wait(event: str) -> None:
    few, more, many = (work(EVENTS[event], size) for size in SIZES)
    assert more.calls <= 1.2 * few.calls
    assert many.calls <= 1.2 * few.calls
    assert many.told == few.told <= 3


def test_places_are_told_by_a_timer_and_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "INTERVAL_S", 0)
    told: list[int] = []
    tell = places.Places._tell_all

    async def noted(self: places.Places, tickets: list[Ticket]) -> None:
        told.append(len(tickets))
        await tell(self, tickets)

    monkeypatch.setattr(places.Places, "_tell_all", noted)

    async def test(front: Front) -> None:
        tasks = [front.ask(str(index), OWNERS[index % 5]) for index in range(500)]
        async with asyncio.timeout(60):
            while tasks[-1].progress.queue_position != 499:
                await settle()
        for _ in range(100):
            front.engine.finish(front.engine.prompts[0])
            await settle()
        async with asyncio.timeout(60):
            while tasks[-1].progress.queue_position != 399:
                await settle()
        assert len(told) < 50, "not with each event"

    run(test, capacity=1000, in_flight=8)
