"""Whatever goes wrong with one request in the queue ends that one. No engine is real here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from dispatched import ANNE, Front, error_of, run
from fake_engine import settle

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import DeadlineExceeded, GenerationFailed, MultimodalGenError
from multimodal_gen.messages.codec import encode
from multimodal_gen.messages.request import Submit
from multimodal_gen.serving.task import Task


def encoding(front: Front) -> None:
    """Let the engine's client encode what it sends, as the real one does."""
    submit = front.engine.submit

    def encoded(req: Any, pictures: Any = ()) -> Any:
        encode(Submit(req), pictures)
        return submit(req, pictures)

    front.engine.submit = encoded  # type: ignore[method-assign]


class Grumpy:
    """An observer that raises whatever it is told."""

    def started(self, task: Task) -> None:
        raise RuntimeError("planted")

    def made(self, task: Task, output: Output) -> None:
        raise RuntimeError("planted")

    def ended_early(self, task: Task) -> None:
        raise RuntimeError("planted")


def test_a_request_that_cannot_be_sent_ends_and_the_next_is_sent() -> None:
    async def test(front: Front) -> None:
        encoding(front)
        first = front.ask("first")
        lora = (LoraChoice("\ud800"),)
        (req,) = front.service.resolve(SamplingParams(prompt="bad"))
        unsendable = msgspec.structs.replace(req, params=replace(req.params, lora=lora))
        bad = front.service.start(requests=[unsendable], owner=ANNE)
        following = front.ask("next")
        front.engine.finish("first")
        await first.wait()
        await settle()
        assert isinstance(await error_of(bad), MultimodalGenError)
        assert bad.status == "failed"
        front.engine.finish("next")
        await following.wait()
        assert not front.service.tasks

    run(test, in_flight=1)


@pytest.mark.parametrize("error", [RuntimeError("planted"), KeyError("x"), MemoryError()])
def test_any_error_of_sending_ends_its_request_only(error: Exception) -> None:
    async def test(front: Front) -> None:
        submit = front.engine.submit

        def failing(req: Any, pictures: Any = ()) -> Any:
            if req.params.prompt == "bad":
                raise error
            return submit(req, pictures)

        front.engine.submit = failing  # type: ignore[method-assign]
        first, bad, following = (front.ask(prompt) for prompt in ("first", "bad", "next"))
        front.engine.finish("first")
        await first.wait()
        assert isinstance(await error_of(bad), GenerationFailed)
        await settle()
        front.engine.finish("next")
        await following.wait()

    run(test, in_flight=1)


Event = Callable[[Front], None]
EVENTS: dict[str, Event] = {
    "progress": lambda front: front.engine.step("bad", 3),
    "output": lambda front: front.engine.finish("bad"),
    "error": lambda front: front.engine.fail("bad", GenerationFailed("a reason")),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_receiver_that_raises_ends_its_request_only(
    event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(front: Front) -> None:
        bad, following = front.ask("bad"), front.ask("next")
        receive, raised = Task.receive, [False]

        def faulty(task: Task, index: int, what: Any) -> None:
            if task is bad and not raised[0]:
                raised[0] = True
                raise RuntimeError("planted")
            receive(task, index, what)

        monkeypatch.setattr(Task, "receive", faulty)
        EVENTS[event](front)
        await settle()
        assert raised[0]
        assert isinstance(await error_of(bad), GenerationFailed)
        await settle()
        assert front.engine.prompts == ["next"]
        front.engine.finish("next")
        await following.wait()
        assert (front.service.health().running, front.service.health().waiting) == (0, 0)

    run(test, in_flight=1)


def test_an_error_of_an_observer_is_no_error_of_a_task() -> None:
    async def test(front: Front) -> None:
        front.service.observers.append(Grumpy())
        made, failed, following = (front.ask(prompt) for prompt in ("a", "b", "c"))
        front.engine.finish("a")
        await made.wait()
        front.engine.fail("b", GenerationFailed("a reason"))
        assert str(await error_of(failed)) == "a reason"
        front.engine.finish("c")
        await following.wait()
        assert not front.service.tasks

    run(test)


def test_draining_ends_after_requests_that_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(front: Front) -> None:
        bad, good = front.ask("bad"), front.ask("good")
        receive = Task.receive

        def faulty(task: Task, index: int, what: Any) -> None:
            if task is bad and isinstance(what, Output):
                raise RuntimeError("planted")
            receive(task, index, what)

        monkeypatch.setattr(Task, "receive", faulty)
        draining = asyncio.create_task(front.service.drain(600))
        for prompt in ("bad", "good"):
            front.engine.finish(prompt)
        await good.wait()
        assert isinstance(await error_of(bad), GenerationFailed)
        await draining

    run(test)


# -- deadlines, while other requests fill the engine


def test_a_deadline_is_kept_while_a_request_waits_for_the_engine() -> None:
    async def test(front: Front) -> None:
        front.ask("long")
        late = [front.ask(str(s), deadline_s=s) for s in (0.6, 0.2, 0.4)]
        patient = front.ask("patient", deadline_s=3600)
        ended: list[str] = []

        async def note(task: Task) -> None:
            assert isinstance(await error_of(task), DeadlineExceeded)
            ended.append(task.requests[0].params.prompt)

        async with asyncio.timeout(30):
            await asyncio.gather(*map(note, late))
        assert ended == ["0.2", "0.4", "0.6"]
        assert not patient.done
        assert front.engine.prompts == ["long"]
        assert front.service.health().waiting == 2

    run(test, in_flight=1)


def test_a_deadline_is_kept_while_an_engine_is_replaced() -> None:
    async def test(front: Front) -> None:
        running = front.ask("running", deadline_s=0.05)
        front.engine.step("running", 3)
        await settle()
        await front.die()
        async with asyncio.timeout(30):
            assert isinstance(await error_of(running), DeadlineExceeded)
        front.up()
        assert not front.engine.alive

    run(test)


def test_the_operators_time_limit_is_a_deadline() -> None:
    async def test(front: Front) -> None:
        front.ask("long")
        late = front.ask("late")
        assert late.requests[0].params.deadline_s == 0.01
        async with asyncio.timeout(30):
            assert isinstance(await error_of(late), DeadlineExceeded)

    run(test, ServerArgs(max_request_s=0.01), in_flight=1)
