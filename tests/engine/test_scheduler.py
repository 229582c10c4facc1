"""The Scheduler with a real door and real clients; the test plays the ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from http_serving import eventually
from no_model import MODEL
from told import texts

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    EngineNotReady,
    GenerationFailed,
    InvalidRequest,
    OutOfMemory,
    not_finite,
)
from multimodal_gen.messages.codec import Decoder, encode, header_of
from multimodal_gen.messages.plan import (
    Ack,
    AdapterRead,
    BatchKey,
    EvaluationRun,
    Phase,
    Plan,
    Prepared,
    RankLoaded,
)
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.scheduler import client_gateway, cost_bulletin
from multimodal_gen.runtime.scheduler import scheduler as module
from multimodal_gen.runtime.scheduler.adapter_cache import AdapterCache
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway
from multimodal_gen.runtime.scheduler.rank_links import RankLinks
from multimodal_gen.runtime.scheduler.scheduler import Scheduler
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

LORA_MODEL = msgspec.structs.replace(MODEL, parameters=("lora",))


class Ranks:
    """All ranks of an engine, played by the test, and a client of it."""

    def __init__(
        self,
        folder: Path,
        size: int = 1,
        step_timeout: float = 30.0,
        lora_dir: str | None = None,
        cost_file: Path | None = None,
        memory_bytes: Sequence[int] = (),
    ) -> None:
        self._cost_file = cost_file
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        address = f"ipc://{folder}/client"
        links = RankLinks(self._context, "inproc://ranks", size)
        self.sockets = [self._connect(rank) for rank in range(size)]
        gateway = ClientGateway(address)
        loras = AdapterCache({"lora": lora_dir}, 2, size)
        self.scheduler = Scheduler(
            self._context, links, gateway, step_timeout, self._make_policy, loras
        )
        self.scheduler.start()
        for rank in range(size):
            memory = memory_bytes[rank] if memory_bytes else 0
            self.say(rank, RankLoaded(rank=rank, model=LORA_MODEL, memory_bytes=memory))
        self.client = SchedulerClient(address)
        self.client.wait_ready(30)

    def _make_policy(self, loaded: RankLoaded) -> tuple[Policy, CostModel]:
        self.loaded = loaded
        cost = CostModel(parameters=1000, memory_bytes=0, device="cpu", path=self._cost_file)
        self.cost = cost
        return Policy(cost, max_batch=4, max_queue=8), cost

    def _connect(self, rank: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, str(rank).encode())
        socket.connect("inproc://ranks")
        return socket

    def say(self, rank: int, message: msgspec.Struct) -> None:
        self.sockets[rank].send_multipart(encode(message))

    def plan(self, rank: int = 0) -> Plan:
        assert self.sockets[rank].poll(30_000), "no plan came"
        plan, _ = Decoder(Plan).decode(self.sockets[rank].recv_multipart())
        assert isinstance(plan, Plan)
        self.last = plan
        return plan

    def close(self) -> None:
        self.client.close()
        self.scheduler.stop()
        self.scheduler.join()
        self._context.destroy(linger=0)


Start = Callable[..., Ranks]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a Scheduler whose death is not the test's, and whose last words are heard however long
    that takes."""
    monkeypatch.setattr(module.os, "_exit", lambda status: None)
    monkeypatch.setattr(client_gateway, "LAST_WORDS_S", 30)
    started: list[Ranks] = []

    def begin(**options: Any) -> Ranks:
        started.append(Ranks(tmp_path, **options))
        return started[-1]

    yield begin
    for ranks in started:
        ranks.close()


def request(seed: int = 0) -> Req:
    (req,) = requests_of(SamplingParams(prompt="x", seed=seed), MODEL)
    return req


FAILURE = WireError(code="generation_failed", message="planted")


def test_work_for_a_cancelled_request_is_not_its_successors(start: Start) -> None:
    ranks, req = start(), request()
    first = ranks.client.submit(req)
    encoding = ranks.plan()
    assert encoding.admit == (req,)
    first.cancel()
    with pytest.raises(Cancelled):
        first.result(30)
    second = ranks.client.submit(req)
    second.accepted(30)
    ranks.say(0, Ack(number=encoding.number, rank=0, advanced=1, failures={req.id: FAILURE}))
    # One plan may do both: ranks drop before they admit.
    plans = [ranks.plan()]
    if not plans[0].admit:
        plans.append(ranks.plan())
    assert plans[0].drop == (req.id,)
    assert plans[-1].admit == (req,)
    assert plans[-1].work is not None
    assert plans[-1].work.phase is Phase.ENCODE
    with pytest.raises(TimeoutError):
        second.result(0.2)


def test_a_death_is_told_though_the_gateway_asks_for_the_lock(start: Start) -> None:
    ranks = start()
    handles = [ranks.client.submit(request(seed)) for seed in range(3)]
    for handle in handles:
        handle.accepted(30)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                ranks.client.health(1)
            except (EngineDied, EngineNotReady, TimeoutError):
                return

    asking = threading.Thread(target=ask)
    asking.start()
    ranks.scheduler._issued._step_timeout = 0.3  # Only now: all of them are to see the silence.
    for handle in handles:
        with pytest.raises(EngineDied, match="did not respond"):
            handle.result(30)
    stop.set()
    asking.join()


@pytest.mark.parametrize(
    "message",
    [Ack(number=7, rank=1), RankLoaded(rank=1, model=MODEL)],
    ids=["plan not due", "loaded again"],
)
def test_an_answer_that_no_rank_would_give_ends_the_engine(
    start: Start, message: msgspec.Struct
) -> None:
    ranks = start(size=2)
    handle = ranks.client.submit(request())
    ranks.plan(1)
    ranks.say(1, message)
    with pytest.raises(EngineDied):
        handle.result(30)


@pytest.mark.parametrize("rank", [0, 2], ids=["another's rank", "no rank"])
def test_an_answer_under_another_name_is_dropped(start: Start, rank: int) -> None:
    ranks = start(size=2)
    handle = ranks.client.submit(request())
    ranks.plan(1)
    ranks.say(1, Ack(number=0, rank=rank))
    ranks.sockets[1].send(b"\xc1")
    ranks.say(1, Ack(number=7, rank=1))  # heard after them, and ends the engine
    with pytest.raises(EngineDied):
        handle.result(30)
    assert ranks.scheduler._links.dropped.count == 2


def test_every_request_ends_once_when_the_engine_is_told_to_stop(start: Start) -> None:
    ranks = start()
    handles = [ranks.client.submit(request(seed)) for seed in range(5)]
    for handle in handles:
        handle.accepted(30)
    ranks.client.shutdown_engine()
    for handle in handles:
        with pytest.raises(Cancelled, match="engine was stopped"):
            handle.result(30)
    with pytest.raises(EngineNotReady):
        ranks.scheduler.submit(request())


def test_other_clients_of_a_stopped_engine_hear_that_it_is_gone_not_that_they_cancelled(
    start: Start,
) -> None:
    ranks = start()
    with SchedulerClient(ranks.client.address) as other:
        other.wait_ready(30)
        handle = other.submit(request())
        handle.accepted(30)
        ranks.client.shutdown_engine()
        with pytest.raises(EngineNotReady, match="engine was stopped"):
            handle.result(30)
        assert isinstance(other.died, EngineNotReady)


def test_ranks_resume_once_nothing_decided_before_the_error_is_in_flight(start: Start) -> None:
    ranks, reqs = start(), [request(seed) for seed in range(2)]
    handles = [ranks.client.submit(req) for req in reqs]
    for handle in handles:
        handle.accepted(30)
    resumed = 0
    failed = False
    while not resumed:
        plan = ranks.plan()
        resumed += plan.resume
        answer = Ack(number=plan.number, rank=0)
        if plan.resume:
            assert failed
            assert plan.work is not None or plan.drop
        elif failed:
            answer = msgspec.structs.replace(answer, skipped=plan.work is not None)
        elif plan.work is not None and plan.work.phase is Phase.ENCODE:
            prepared = Prepared(batch_keys=(EvaluationRun(BatchKey(16), 400, 1),), decode_chunks=1)
            answer = msgspec.structs.replace(
                answer, advanced=1, seconds=0.001, prepared=dict.fromkeys(plan.work.ids, prepared)
            )
        elif plan.work is not None:
            failed = True
            handles[1].cancel()
            answer = msgspec.structs.replace(answer, error=FAILURE)
        ranks.say(0, answer)
    with pytest.raises(Cancelled):
        handles[1].result(30)


KEY = BatchKey(16)


def is_step_of(plan: Plan, requests: int) -> bool:
    """Whether so many requests share the step. The first runs alone, to measure it."""
    work = plan.work
    return work is not None and work.phase is Phase.DENOISE and len(work.ids) == requests


def run_out_of_memory_on_one_rank(ranks: Ranks, requests: Sequence[Req]) -> list[RequestHandle]:
    """Let rank 0 of two run out of memory in the first step that all share; the other never answers
    it."""
    handles = [ranks.client.submit(req) for req in requests]
    for handle in handles:
        handle.accepted(30)
    prepared = Prepared(batch_keys=(EvaluationRun(KEY, 400, 1),), decode_chunks=1)
    while not is_step_of(plan := ranks.plan(), len(requests)):
        encoded = plan.work is not None and plan.work.phase is Phase.ENCODE
        work = dict.fromkeys(plan.work.ids, prepared) if plan.work and encoded else {}
        k = 1 if plan.work is None else plan.work.k
        for rank in range(2):
            ranks.say(
                rank, Ack(number=plan.number, rank=rank, advanced=k, seconds=0.1, prepared=work)
            )
    ranks.say(0, Ack(number=plan.number, rank=0, error=WireError.of(OutOfMemory("planted"))))
    return handles


def test_a_rank_that_runs_out_of_memory_alone_makes_the_next_engines_batches_smaller(
    start: Start, tmp_path: Path
) -> None:
    ranks = start(size=2, cost_file=tmp_path / "cost.json")
    for handle in run_out_of_memory_on_one_rank(ranks, [request(seed) for seed in range(2)]):
        with pytest.raises(EngineDied, match="planted"):
            handle.result(30)
    ranks.scheduler.join()
    next_engines = CostModel(
        parameters=1000, memory_bytes=0, device="cpu", path=tmp_path / "cost.json"
    )
    assert next_engines.fits(KEY, 1)
    assert not next_engines.fits(KEY, 2)


def test_a_request_alone_for_which_a_rank_runs_out_of_memory_ends_with_that(start: Start) -> None:
    (handle,) = run_out_of_memory_on_one_rank(start(size=2), [request()])
    with pytest.raises(OutOfMemory, match="planted"):
        handle.result(30)


@pytest.mark.parametrize(
    ("phase", "cause"), [(Phase.ENCODE, InvalidRequest), (Phase.DECODE, OutOfMemory)]
)
def test_a_request_that_fails_on_several_ranks_ends_with_the_cause(
    start: Start, phase: Phase, cause: type[Exception]
) -> None:
    ranks = start(size=2)
    handle = ranks.client.submit(request())
    handle.accepted(30)
    prepared = Prepared(batch_keys=(EvaluationRun(KEY, 1, 1),), decode_chunks=1)
    errors = {
        Phase.ENCODE: (InvalidRequest("prompt", "", "planted"), GenerationFailed("on the others")),
        Phase.DECODE: (not_finite("decoding"), OutOfMemory("planted")),
    }[phase]
    while (work := (plan := ranks.plan()).work) is None or work.phase is not phase:
        encoded = work is not None and work.phase is Phase.ENCODE
        told = dict.fromkeys(work.ids, prepared) if work is not None and encoded else {}
        for rank in range(2):
            ranks.say(
                rank, Ack(number=plan.number, rank=rank, advanced=1, seconds=0.1, prepared=told)
            )
    for rank, error in enumerate(errors):
        failures = {work.ids[0]: WireError.of(error)}
        ranks.say(
            rank, Ack(number=plan.number, rank=rank, advanced=1, seconds=0.1, failures=failures)
        )
    with pytest.raises(cause, match="planted"):
        handle.result(30)


def test_ranks_agree_on_memory_before_their_first_step_of_a_size_only(start: Start) -> None:
    ranks = start(size=2)
    handle = ranks.client.submit(request())
    handle.accepted(30)
    prepared = Prepared(batch_keys=(EvaluationRun(KEY, 400, 1),), decode_chunks=1)
    untried: list[int] = []
    acknowledged = 0
    while len(untried) < 4:
        plan = ranks.plan()
        assert plan.work is not None
        if plan.work.phase is Phase.DENOISE:
            untried.append(plan.work.untried_bytes)
        work = dict.fromkeys(plan.work.ids, prepared) if plan.work.phase is Phase.ENCODE else {}
        for rank in range(2):
            ranks.say(
                rank,
                Ack(number=plan.number, rank=rank, advanced=1, seconds=0.1, prepared=work),
            )
        acknowledged += plan.work.phase is Phase.DENOISE
    assert untried[0] > 0
    assert untried[-1] == 0


def test_a_size_that_some_rank_has_no_memory_for_costs_no_engine(start: Start) -> None:
    """They found that before the step, so all say the same."""
    ranks = start(size=2)
    requests = [request(seed) for seed in range(2)]
    handles = run_out_of_memory_on_one_rank(ranks, requests)
    failed = ranks.last
    ranks.say(1, Ack(number=failed.number, rank=1, error=WireError.of(OutOfMemory("planted"))))
    while not is_step_of(plan := ranks.plan(), 1):
        for rank in range(2):
            skipped = plan.work is not None and not plan.resume
            ranks.say(rank, Ack(number=plan.number, rank=rank, skipped=skipped))
    assert plan.resume
    assert not ranks.cost.fits(KEY, 2)
    for handle in handles:
        with pytest.raises(TimeoutError):
            handle.result(0.01)


def test_batches_are_planned_for_the_rank_with_the_least_memory(start: Start) -> None:
    ranks = start(size=3, memory_bytes=(900, 300, 500))
    assert ranks.loaded.memory_bytes == 300


def lora_request(*names: str) -> Req:
    (req,) = requests_of(SamplingParams(prompt="x", lora=names), LORA_MODEL)
    return req


def test_a_slow_lora_holds_up_only_who_asked_for_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.safetensors").touch()
    ranks = start(lora_dir=str(tmp_path), size=2)
    first = ranks.client.submit(lora_request("slow"))
    plan = ranks.plan()
    (load,) = plan.load
    assert (load.name, plan.work) == ("slow", None)
    other = request()
    ranks.client.submit(other)
    assert ranks.plan().admit == (other,)
    ranks.say(0, AdapterRead(number=load.number, rank=0))
    with pytest.raises(TimeoutError):
        first.result(0.2)
    ranks.say(1, AdapterRead(number=load.number, rank=1))
    for rank in (0, 1):
        ranks.say(rank, Ack(number=0, rank=rank))
        ranks.say(rank, Ack(number=1, rank=rank, advanced=1, failures={other.id: FAILURE}))
    admitted = ranks.plan()
    while not admitted.admit:
        admitted = ranks.plan()
    (req,) = admitted.admit
    assert admitted.adapters == {req.id: (load.number,)}


def test_a_lora_that_does_not_fit_ends_those_who_asked_for_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").touch()
    ranks = start(lora_dir=str(tmp_path))
    asked = [ranks.client.submit(lora_request("odd")) for _ in range(2)]
    for handle in asked:
        handle.accepted(30)
    (load,) = ranks.plan().load
    error = WireError(code="invalid_value", message="lora='odd': does not fit", field="lora")
    ranks.say(0, AdapterRead(number=load.number, rank=0, error=error))
    for handle in asked:
        with pytest.raises(InvalidRequest, match="does not fit"):
            handle.result(30)
    assert ranks.plan().unload == (load.number,)
    ranks.client.submit(lora_request("odd"))
    assert [again.name for again in ranks.plan().load] == ["odd"]


def test_an_unknown_lora_is_refused_with_those_that_are_there(start: Start, tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").touch()
    ranks = start(lora_dir=str(tmp_path))
    with pytest.raises(InvalidRequest, match="not known; available: style"):
        ranks.client.submit(lora_request("../style")).result(30)


def test_a_result_has_the_warnings_about_its_loras_and_its_own(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "ink.safetensors").touch()
    ranks = start(lora_dir=str(tmp_path))
    handle = ranks.client.submit(lora_request("ink"))
    (load,) = ranks.plan().load
    ranks.say(0, Ack(number=0, rank=0))
    ranks.say(
        0,
        AdapterRead(
            number=load.number, rank=0, warnings=(RequestWarning("adapter", "lora", "of the file"),)
        ),
    )
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    prepared = Prepared(
        batch_keys=(EvaluationRun(BatchKey(16), 1, 1),),
        decode_chunks=1,
        warnings=(RequestWarning("no_effect", None, "its own"),),
    )
    acks: dict[Phase, dict[str, Any]] = {
        Phase.ENCODE: {"prepared": {handle.id: prepared}},
        Phase.DENOISE: {},
        Phase.DECODE: {"finished": (handle.id,), "frames": (header_of(pixels),)},
    }
    for phase in acks:
        plan = ranks.plan()
        assert plan.work is not None
        assert plan.work.phase is phase
        ack = Ack(number=plan.number, rank=0, advanced=1, seconds=0.001, **acks[phase])
        ranks.sockets[0].send_multipart(encode(ack, [pixels] if phase is Phase.DECODE else []))
    assert texts(handle.result(30).warnings) == ["its own", "of the file"]


def test_clients_are_told_how_long_evaluations_take_and_again_when_that_changes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_bulletin, "PAUSE_S", 0)
    ranks, req = start(), request()
    assert eventually(lambda: bool(ranks.client.costs.points))
    before = ranks.client.costs
    ranks.client.submit(req)
    encoding = ranks.plan()
    key = BatchKey(36, "picture")
    prepared = {req.id: Prepared(batch_keys=(EvaluationRun(key, 20, 2),), decode_chunks=1)}
    ranks.say(0, Ack(number=encoding.number, rank=0, advanced=1, prepared=prepared, seconds=0.1))
    for _ in range(3):
        plan = ranks.plan()
        assert plan.work is not None
        took = 40.0 * plan.work.k
        ranks.say(0, Ack(number=plan.number, rank=0, advanced=plan.work.k, seconds=took))
    assert eventually(lambda: ranks.client.costs.seconds(36) > 30), before
    later = SchedulerClient(ranks.client.address)
    assert eventually(lambda: later.costs == ranks.client.costs)
    later.close()
