"""When an engine is started again, and when it is not. The engines are the test's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import EngineDied, InvalidCheckpoint, MultimodalGenError
from multimodal_gen.launch import supervisor
from multimodal_gen.launch.supervisor import EngineSupervisor
from multimodal_gen.messages.loading import LoadingProgress

LOADING = LoadingProgress(component="vae", loaded_bytes=1, total_bytes=2)
DIED = EngineDied("rank 0 was killed by SIGKILL")


class OneEngine:
    """Ready or not at once, as the test says; lost when the test says."""

    def __init__(self, refuses: MultimodalGenError | None = None) -> None:
        self.client = SimpleNamespace(engine=self)
        self.closed = False
        self._refuses = refuses
        self._ends: queue.Queue[MultimodalGenError | None] = queue.Queue()

    def __enter__(self) -> OneEngine:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def wait_ready(self, *, show: Callable[[LoadingProgress], None]) -> None:
        show(LOADING)
        if self._refuses is not None:
            raise self._refuses

    def wait_lost(self) -> MultimodalGenError | None:
        return self._ends.get()

    def lose(self) -> None:
        self._ends.put(DIED)

    def close(self) -> None:
        self.closed = True
        self._ends.put(None)


class Kept:
    """A supervisor, and what it reported."""

    def __init__(self, *engines: OneEngine | Exception) -> None:
        self.told: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._engines = iter(engines)
        self.supervisor = EngineSupervisor(EngineArgs(), self, self._start)  # type: ignore[arg-type]

    def _start(self, _: EngineArgs) -> OneEngine:
        engine = next(self._engines)
        if isinstance(engine, Exception):
            raise engine
        return engine

    def engine_loading(self, progress: LoadingProgress) -> None:
        assert progress is LOADING

    def engine_up(self, client: Any) -> None:
        self.told.put(("up", client.engine))

    def engine_lost(self, error: MultimodalGenError) -> None:
        self.told.put(("lost", error))

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self.told.put(("failed for good" if for_good else "failed", error))

    def hears(self) -> tuple[str, Any]:
        return self.told.get(timeout=30)

    def is_over(self) -> bool:
        self.supervisor._thread.join(30)
        return not self.supervisor._thread.is_alive() and self.told.empty()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.001)


def test_a_lost_engine_is_closed_and_followed_by_another_however_often() -> None:
    engines = [OneEngine() for _ in range(4)]
    kept = Kept(*engines)
    for engine in engines[:-1]:
        assert kept.hears() == ("up", engine)
        engine.lose()
        assert kept.hears() == ("lost", DIED)
    assert kept.hears() == ("up", engines[-1])
    kept.supervisor.close()
    assert kept.is_over()
    assert all(engine.closed for engine in engines)


@pytest.mark.parametrize("error", [InvalidCheckpoint("no such model"), RuntimeError("a bug")])
def test_what_can_not_be_loaded_the_first_time_is_given_up(error: Exception) -> None:
    kept = Kept(error)
    what, told = kept.hears()
    assert what == "failed for good"
    assert str(error) in told.message
    assert kept.is_over()


def test_a_rank_that_dies_while_it_loads_is_tried_again() -> None:
    dying, good = OneEngine(refuses=DIED), OneEngine()
    kept = Kept(dying, good)
    assert kept.hears() == ("failed", DIED)
    assert kept.hears() == ("up", good)
    assert dying.closed
    kept.supervisor.close()
    assert kept.is_over()


def test_what_was_loaded_once_is_tried_again_whatever_the_reason() -> None:
    first, second = OneEngine(), OneEngine()
    kept = Kept(first, OSError("no more processes"), second)
    assert kept.hears() == ("up", first)
    first.lose()
    assert [kept.hears()[0] for _ in range(3)] == ["lost", "failed", "up"]
    kept.supervisor.close()


def test_closing_while_an_engine_starts_closes_it() -> None:
    begins, may_go_on = threading.Event(), threading.Event()
    engine = OneEngine()

    class Slow(Kept):
        def _start(self, args: EngineArgs) -> OneEngine:
            begins.set()
            may_go_on.wait(30)
            return super()._start(args)

    kept = Slow(engine)
    begins.wait(30)
    kept.supervisor.close()
    may_go_on.set()
    assert kept.is_over()
    assert engine.closed


def test_waits_between_starts_grow_and_end_with_a_healthy_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 0.5)
    lives = iter([1.0, 0.0, 0.0, 100.0, 1.0, *[0.0] * 5, None])
    waits: list[float] = []
    kept = EngineSupervisor.__new__(EngineSupervisor)
    monkeypatch.setattr(kept, "_one", lambda: next(lives), raising=False)
    closing = SimpleNamespace(wait=lambda delay: waits.append(delay))
    monkeypatch.setattr(kept, "_closing", closing, raising=False)
    kept._run()
    assert waits == [0, 0.5, 1, 2, 0, 0.5, 1, 2, 4, 8, 10]
