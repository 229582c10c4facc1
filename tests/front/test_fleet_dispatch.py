"""Several engines and models behind one front. No engine is real here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from fake_engine import FakeEngine, settle
from http_serving import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import EngineDied, EngineNotReady, ModelNotFound
from multimodal_gen.serving.dispatch.dispatcher import QueueLimits
from multimodal_gen.serving.owner import Owner, Share
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task

ANNE, BOB = Owner("anne"), Owner("bob")


class Yard:
    """A service with engines of the test's, by their names."""

    def __init__(self, args: ServerArgs, **limits: Any) -> None:
        self.service = Service(args, QueueLimits(**limits))
        self.engines = {engine.name: engine for engine in self.service.fleet.engines}
        self.fakes: dict[str, FakeEngine] = {}

    def up(self, name: str) -> FakeEngine:
        info = msgspec.structs.replace(MODEL, name="as reported")
        self.fakes[name] = FakeEngine(info)
        self.engines[name].engine_up(self.fakes[name])  # type: ignore[arg-type]
        return self.fakes[name]

    async def die(self, name: str) -> None:
        """As it happens: requests come back before the supervisor notices."""
        self.fakes[name].die()
        await settle()
        self.engines[name].engine_lost(EngineDied("killed"))

    def ask(
        self, prompt: str, owner: Owner = ANNE, model: str | None = None, **params: Any
    ) -> Task:
        given = SamplingParams(prompt=prompt, seed=5, **params)
        return self.service.start(given, owner=owner, model=model)

    def prompts(self, name: str) -> list[str]:
        return self.fakes[name].prompts


def run(
    test: Callable[[Yard], Awaitable[None]], args: ServerArgs | None = None, **limits: Any
) -> None:
    async def whole() -> None:
        yard = Yard(args or ServerArgs(model=("a=x",), replicas=3), **limits)
        for name in yard.engines:
            yard.up(name)
        await test(yard)

    asyncio.run(whole())


TWO_MODELS = ServerArgs(model=("a=x", "b=y"))


def test_requests_are_spread_over_the_engines_of_their_model() -> None:
    async def test(yard: Yard) -> None:
        for index in range(6):
            yard.ask(str(index))
        assert [len(yard.prompts(name)) for name in yard.engines] == [2, 2, 2]

    run(test)


def test_each_model_has_its_own_engines_and_lines() -> None:
    async def test(yard: Yard) -> None:
        for index in range(3):
            yard.ask(f"a {index}", model="a")
        yard.ask("b", model="b")
        assert yard.prompts("a") == ["a 0"]
        assert yard.prompts("b") == ["b"], "it must not wait for those of another model"

    run(test, TWO_MODELS, in_flight=1)


def test_the_first_model_is_the_default_and_an_unknown_one_is_refused_with_the_names() -> None:
    async def test(yard: Yard) -> None:
        assert yard.ask("whichever").model == "a"
        assert yard.prompts("a") == ["whichever"]
        with pytest.raises(ModelNotFound, match="model 'c' is not served; available: 'a', 'b'"):
            yard.ask("c", model="c")

    run(test, TWO_MODELS)


def test_an_owner_has_no_more_in_flight_than_allowed_in_all_engines_together() -> None:
    async def test(yard: Yard) -> None:
        for index in range(4):
            yard.ask(str(index))
        assert sum(len(yard.prompts(name)) for name in yard.engines) == 2

    run(test, shares={"anne": Share(max_concurrent=2)})


def test_what_a_lost_engine_had_goes_to_another_at_once() -> None:
    async def test(yard: Yard) -> None:
        tasks = [yard.ask(str(index)) for index in range(3)]
        await yard.die("a/0")
        assert yard.service.health().phase == "ready"
        assert [task.requests[0].params.prompt for task in tasks if not task.done] == list("012")
        for name in ("a/1", "a/2"):
            while yard.prompts(name):
                yard.fakes[name].finish(yard.prompts(name)[0])
                await settle()
        assert all(task.status == "completed" for task in tasks)

    run(test)


def test_what_a_stopped_engine_had_goes_to_the_others_and_is_no_suspect() -> None:
    async def test(yard: Yard) -> None:
        tasks = [yard.ask(str(index)) for index in range(6)]
        for name in yard.engines:
            for prompt in yard.prompts(name):
                yard.fakes[name].step(prompt, 2)
        await settle()
        yard.fakes["a/0"].die(EngineNotReady("the engine was stopped"))
        await settle()
        assert len(yard.prompts("a/1")) == len(yard.prompts("a/2")) == 3
        assert not any(task.done for task in tasks)

    run(test)


def test_suspects_are_tried_on_one_engine_while_the_others_go_on() -> None:
    async def test(yard: Yard) -> None:
        for index in range(6):
            yard.ask(f"ran {index}")
        for name in yard.engines:
            for prompt in yard.prompts(name):
                yard.fakes[name].step(prompt, 2)
        await settle()
        suspects = yard.prompts("a/0")
        await yard.die("a/0")
        for index in range(4):
            yard.ask(f"new {index}")
        emptied, going_on = sorted(("a/1", "a/2"), key=lambda name: len(yard.prompts(name)))
        assert len(yard.prompts(emptied)) == 2, "what it has goes on, but no more comes"
        assert len(yard.prompts(going_on)) == 6
        for prompt in yard.prompts(emptied):
            yard.fakes[emptied].finish(prompt)
            await settle()
        assert len(yard.prompts(emptied)) == 1, "a suspect flies without neighbours"
        assert yard.prompts(emptied)[0] in suspects
        yard.ask("newer")
        assert "newer" in yard.prompts(going_on)
        await yard.die(emptied)
        assert "newer" in yard.prompts(going_on)

    run(test)


def test_idle_engines_try_suspects_one_each() -> None:
    async def test(yard: Yard) -> None:
        await yard.die("a/1")
        await yard.die("a/2")
        tasks = [yard.ask(str(index)) for index in range(12)]
        for prompt in yard.prompts("a/0"):
            yard.fakes["a/0"].step(prompt, 1)
        await settle()
        await yard.die("a/0")
        for name in yard.engines:
            yard.up(name)
        rounds = 0
        while not all(task.done for task in tasks):
            rounds += 1
            assert [len(yard.prompts(name)) for name in yard.engines] == [1, 1, 1]
            for name in yard.engines:
                yard.fakes[name].finish(yard.prompts(name)[0])
            await settle()
        assert rounds == 4

    run(test)


def test_an_engine_elsewhere_serves_the_model_that_it_reports() -> None:
    far = ("tcp://far:1", "tcp://far:2")
    args = ServerArgs(model=("as reported=x",), engine=far, engine_key_file="keys")

    async def whole() -> None:
        yard = Yard(args)
        yard.up("as reported")
        with pytest.raises(EngineNotReady, match="still loading"):
            yard.ask("early", model="another")
        yard.up("tcp://far:1")
        other = FakeEngine(msgspec.structs.replace(MODEL, name="another"))
        yard.engines["tcp://far:2"].engine_up(other)  # type: ignore[arg-type]
        assert [model.name for model in yard.service.fleet.models] == ["as reported", "another"]
        for prompt in ("one", "two"):
            yard.ask(prompt)
        yard.ask("three", model="another")
        assert [yard.prompts(name) for name in yard.fakes] == [["one"], ["two"]]
        assert other.prompts == ["three"]

    asyncio.run(whole())
