"""Models that are loaded on demand, unloaded and restarted. No engine is real here."""

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
from multimodal_gen.errors import EngineNotReady, InvalidCheckpoint
from multimodal_gen.serving.fleet import model_loader
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task

ANNE = Owner("anne")
GB = 10**9


class Kept:
    """What keeps an engine: it starts when the test says so."""

    def __init__(self, engine: Engine, log: list[str]) -> None:
        self.engine = engine
        self.fake: FakeEngine | None = None
        self._log = log
        log.append(f"load {engine.name}")

    def up(self) -> None:
        self.fake = FakeEngine(msgspec.structs.replace(MODEL, name="any"))
        self.engine.engine_up(self.fake)  # type: ignore[arg-type]

    def close(self) -> None:
        self._log.append(f"unload {self.engine.name}")


class Loading:
    """A service with models of 1 GB each, and a log of what is loaded and unloaded."""

    def __init__(self, budget_gb: float, **given: Any) -> None:
        self.service = Service(ServerArgs(**{"model": ("a=x", "b=y", "c=z"), **given}))
        self.log: list[str] = []
        self.kept: dict[str, Kept] = {}
        for engine in self.service.fleet.engines:
            engine.keep = self._keep
        for model in self.service.fleet.models:
            model.estimate = GB
        self.service.loader.budget = budget_gb * GB
        self.service.loader.start()

    def _keep(self, engine: Engine) -> Kept:
        self.kept[engine.name] = Kept(engine, self.log)
        return self.kept[engine.name]

    def model(self, name: str) -> ServedModel:
        return self.service.fleet.named(name)

    def statuses(self) -> str:
        return " ".join(engine.status for engine in self.service.fleet.engines)

    def ask(self, prompt: str, model: str) -> Task:
        return self.service.start(SamplingParams(prompt=prompt), owner=ANNE, model=model)

    def prompts(self, engine: str) -> list[str]:
        fake = self.kept[engine].fake
        return [] if fake is None else fake.prompts

    def finish(self, engine: str, prompt: str) -> None:
        fake = self.kept[engine].fake
        assert fake is not None
        fake.finish(prompt)


def run(test: Callable[[Loading], Awaitable[None]], budget_gb: float = 2, **given: Any) -> None:
    async def whole() -> None:
        loading = Loading(budget_gb, **given)
        await test(loading)
        await loading.service.loader.close()

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loader, "LOOK_S", 0.005)


def test_the_first_models_that_fit_are_loaded_at_start() -> None:
    async def test(it: Loading) -> None:
        assert it.statuses() == "loading loading unloaded"

    run(test)


def test_without_a_bound_all_are_loaded_at_start() -> None:
    async def test(it: Loading) -> None:
        assert it.statuses() == "loading loading loading"

    run(test, float("inf"))


def test_a_request_loads_its_model_and_waits_for_it() -> None:
    async def test(it: Loading) -> None:
        asked = asyncio.create_task(it.service.known("c"))
        await until(lambda: "c" in it.kept)
        assert not asked.done()
        assert it.model("c").status == "loading"
        it.kept["c"].up()
        assert (await asked).name == "c"
        it.ask("heart", "c")
        assert it.prompts("c") == ["heart"]

    run(test, 3, model=("a=x", "b=y", 'c={"replicas": 1, "model_path": "z"}'))


def test_the_least_recently_used_model_makes_room() -> None:
    async def test(it: Loading) -> None:
        for name in ("a", "b"):
            it.kept[name].up()
        for name in ("b", "a"):  # b is the one that was used longest ago
            task = it.ask("heart", name)
            it.finish(name, "heart")
            await task.wait()
        asked = asyncio.create_task(it.service.known("c"))
        await until(lambda: "c" in it.kept)
        assert it.log == ["load a", "load b", "unload b", "load c"]
        it.kept["c"].up()
        await asked
        task = it.ask("again", "b")  # what is known of b needs no engine
        await until(lambda: it.log[-1] == "load b")
        assert it.log[-2] == "unload a"
        it.kept["b"].up()
        it.finish("b", "again")
        await task.wait()

    run(test)


def test_a_model_with_work_keeps_its_memory_until_its_turn_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(it: Loading) -> None:
        it.kept["a"].up()
        running = it.ask("running", "a")
        asked = asyncio.create_task(it.service.known("b"))
        await asyncio.sleep(0.05)
        assert it.statuses() == "ready unloaded unloaded"
        monkeypatch.setattr(model_loader, "TURN_S", 0.0)
        await until(lambda: it.model("a").status == "draining")
        later = it.ask("later", "a")
        assert it.prompts("a") == ["running"], "no more is sent to it"
        it.finish("a", "running")
        await running.wait()
        await until(lambda: it.log[-1] == "load b")
        it.kept["b"].up()
        await asked
        await until(lambda: it.log[-1] == "load a")  # as a request waits for it
        it.kept["a"].up()
        it.finish("a", "later")
        await later.wait()

    run(test, 1)


def test_requests_for_a_model_that_cannot_be_loaded_end_with_the_reason() -> None:
    async def test(it: Loading) -> None:
        it.kept["a"].up()
        asked = asyncio.create_task(it.service.known("c"))
        await until(lambda: "c" in it.kept)
        it.kept["c"].engine.engine_failed(InvalidCheckpoint("no such file"), for_good=True)
        with pytest.raises(EngineNotReady, match="can't be loaded: no such file"):
            await asked
        again = asyncio.create_task(it.service.known("c"))  # the operator may have mended it
        await until(lambda: it.log.count("load c") == 2)
        it.kept["c"].up()
        await again

    run(test)


def test_a_model_that_is_unloaded_is_loaded_again_by_the_next_request() -> None:
    async def test(it: Loading) -> None:
        it.kept["a"].up()
        running = it.ask("running", "a")
        it.service.loader.unload(it.model("a"))
        await settle()
        assert it.model("a").status == "draining"
        it.finish("a", "running")
        await running.wait()
        await until(lambda: it.model("a").status == "unloaded")
        task = it.ask("next", "a")
        await until(lambda: it.log[-1] == "load a")
        it.kept["a"].up()
        it.finish("a", "next")
        await task.wait()

    run(test)


def test_the_operators_changes_are_made_in_order() -> None:
    async def test(it: Loading) -> None:
        it.kept["a"].up()
        running = it.ask("running", "a")
        for change in ("unload", "load", "unload", "load"):  # each while the first one waits
            getattr(it.service.loader, change)(it.model("a"))
            await settle()
        assert it.model("a").status == "draining"
        it.finish("a", "running")
        await running.wait()
        await until(lambda: it.log.count("load a") == 3)
        assert it.log == ["load a", "load b", *["unload a", "load a"] * 2]

    run(test)


def test_engines_are_restarted_one_by_one_while_the_others_serve() -> None:
    async def test(it: Loading) -> None:
        for kept in it.kept.values():
            kept.up()
        tasks = [it.ask(str(index), "a") for index in range(4)]
        it.service.loader.reload([it.model("a")])
        await settle()
        assert it.statuses() == "draining ready"
        tasks += [it.ask(str(index), "a") for index in range(4, 6)]
        assert len(it.prompts("a/0")) == 2
        for name in ("a/0", "a/1"):
            await until(lambda name=name: it.kept[name].engine.status == "draining")
            for prompt in it.prompts(name):
                it.finish(name, prompt)
            await until(lambda name=name: it.kept[name].engine.status == "loading")
            others = [each for each in it.kept.values() if each.engine.name != name]
            assert [each.engine.status for each in others] == ["ready"]
            it.kept[name].up()
        for task in tasks:
            await task.wait()
        assert it.log[2:] == ["unload a/0", "load a/0", "unload a/1", "load a/1"]

    run(test, model=("a=x",), replicas=2)


def test_an_engine_that_does_not_come_back_ends_the_restart_of_the_others() -> None:
    async def test(it: Loading) -> None:
        for kept in it.kept.values():
            kept.up()
        it.service.loader.reload([it.model("a")])
        await until(lambda: it.kept["a/0"].engine.status == "loading")
        it.kept["a/0"].engine.engine_failed(InvalidCheckpoint("gone"), for_good=True)
        await settle()
        assert it.statuses() == "failed ready"
        assert it.ask("heart", "a")
        assert it.prompts("a/1") == ["heart"]

    run(test, model=("a=x",), replicas=2)
