"""Order of events in a rank, whose worker and sockets are stand-ins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.messages.codec import encode
from multimodal_gen.messages.plan import Ack, Phase, Plan, Work
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.managers import rank_scheduler
from multimodal_gen.runtime.managers.rank_scheduler import RankScheduler


class Rank:
    """Carries out plans, and notes what happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.plans: SimpleQueue[Plan] = SimpleQueue()
        self.acknowledged: SimpleQueue[Any] = SimpleQueue()
        self.is_ahead = True
        """Its first plan ends once it has all."""
        self.all_received = threading.Event()
        monkeypatch.setattr(rank_scheduler, "_connect", self._link)
        monkeypatch.setattr(rank_scheduler, "_monitor", lambda link: link)
        monkeypatch.setattr(RankScheduler, "_watch", lambda *_: None)
        args = RankArgs(
            rank=0,
            engine=EngineArgs(device="cpu"),
            model_folder="",
            model_name="test",
            socket_folder="",
            ranks_address="",
        )
        context: Any = None
        self.own = RankScheduler(context, args)
        told: Any = SimpleQueue()
        self.own._begun = SimpleNamespace(put=self._noting(told.put), get=told.get)  # type: ignore[assignment]
        self.pipeline = SimpleNamespace(when_evaluating=lambda: None)

    def _link(self, context: object, args: object, use: str) -> Any:
        return SimpleNamespace(
            recv_multipart=lambda: encode(self.plans.get()),
            send_multipart=lambda frames, **_: self.acknowledged.put(frames),
            close=self.all_received.set,
        )

    def _noting(self, put: Callable[[Any], None]) -> Callable[[Any], None]:
        def told(outcome: Any) -> None:
            if outcome is not None:
                self.events.append(f"told {outcome.plan.number}")
            put(outcome)

        return told

    def execute(self, plan: Plan, pictures: object = ()) -> Any:
        if plan.number == 0 and self.is_ahead:
            assert self.all_received.wait(60)
        self.events.append(f"begins {plan.number}")
        if plan.work is not None and plan.work.phase is Phase.DENOISE:
            self.pipeline.when_evaluating()
            self.events.append(f"computes {plan.number}")
        return SimpleNamespace(plan=plan, ack=lambda: (Ack(number=plan.number, rank=0), []))

    def run(self) -> None:
        worker: Any = SimpleNamespace(
            adapters=None,
            captures=False,
            graphs=None,
            pipeline=self.pipeline,
            execute=self.execute,
        )
        self.own.run(worker)


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Rank:
    return Rank(monkeypatch)


def plan(number: int, phase: Phase) -> Plan:
    return Plan(number=number, work=Work(phase=phase, ids=("a",)))


def test_a_plan_is_acknowledged_while_the_next_one_computes(rank: Rank) -> None:
    for number, phase in enumerate((Phase.ENCODE, Phase.DENOISE, Phase.DENOISE, Phase.DECODE)):
        rank.plans.put(plan(number, phase))
    rank.plans.put(Plan(number=4, shutdown=True))
    rank.run()
    assert rank.events == [
        *("begins 0", "told 0"),
        *("begins 1", "computes 1"),
        *("begins 2", "told 1", "computes 2"),
        *("told 2", "begins 3", "told 3"),
    ]


def test_a_plan_that_none_follows_is_acknowledged_at_once(rank: Rank) -> None:
    rank.is_ahead = False
    rank.plans.put(plan(0, Phase.DENOISE))
    running = threading.Thread(target=rank.run, daemon=True)
    running.start()
    sent = [rank.acknowledged.get(timeout=60) for _ in ("started", "plan 0")]
    rank.plans.put(plan(1, Phase.DENOISE))
    sent.append(rank.acknowledged.get(timeout=60))
    rank.plans.put(Plan(number=2, shutdown=True))
    running.join(60)
    assert sent[1:] == [encode(Ack(number=number, rank=0)) for number in range(2)]
    assert rank.events == ["begins 0", "computes 0", "told 0", "begins 1", "computes 1", "told 1"]
