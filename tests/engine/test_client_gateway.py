"""The engine's door, without an engine behind it: no message of a client may bring it down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck as Checks
from hypothesis import given, settings
from hypothesis import strategies as st
from no_model import MODEL

from multimodal_gen.client.request_handle import RequestHandle, Update
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, EngineDied, InvalidRequest, MultimodalGenError
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.reply import (
    EngineHealth,
    EngineMessage,
    Failed,
    RequestAccepted,
    RequestProgress,
    WireError,
)
from multimodal_gen.messages.request import Cancel, HealthCheck, Req, Submit
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.messages.wakeup import Wakeup
from multimodal_gen.runtime.scheduler import outbox
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway


class FakeScheduler:
    """Takes every request and finishes none."""

    def __init__(self, gateway: ClientGateway) -> None:
        self.gateway = gateway
        self.alive: set[str] = set()

    def submit(self, req: Req, pictures: object = ()) -> None:
        if req.id == "breaks":
            raise ZeroDivisionError
        if req.id == "no text":  # as the name of a file that an error lists
            raise InvalidRequest("\udcff", "\udcff", "is not \udcff")
        self.alive.add(req.id)

    def cancel(self, request_id: str) -> None:
        if request_id in self.alive:
            self.alive.discard(request_id)
            self.gateway.send(request_id, Failed(request_id, WireError.of(Cancelled("cancelled"))))

    def health(self) -> EngineHealth:
        return EngineHealth(running=0, waiting=len(self.alive))

    def progress_of(self, request_id: str) -> RequestProgress | None:
        return RequestProgress(id=request_id, step=0, total=1) if request_id in self.alive else None

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeScheduler]:
    gateway = ClientGateway(address_in(tmp_path_factory.mktemp("gateway")))
    scheduler = FakeScheduler(gateway)
    gateway.open(scheduler, 1, MODEL)
    yield scheduler
    gateway.close()


def address_in(folder: Path) -> str:
    return f"ipc://{folder}/client"


@pytest.fixture(scope="module")
def address(scheduler: FakeScheduler, tmp_path_factory: pytest.TempPathFactory) -> str:
    return address_in(next(tmp_path_factory.getbasetemp().glob("gateway*")))


@pytest.fixture(scope="module")
def peer(address: str) -> Iterator[zmq.Socket[bytes]]:
    """A client that can say anything."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        yield socket


def ask(peer: zmq.Socket[bytes], frames: list[Any]) -> list[Any]:
    """Say something; the answers up to that of a health check, without what is told unasked: how
    the requests of other tests stand."""
    peer.send_multipart(frames)
    peer.send_multipart(encode(HealthCheck()))
    answers = []
    while True:
        assert peer.poll(30_000), "the gateway answers no more"
        answer, _ = Decoder(EngineMessage).decode(peer.recv_multipart())
        if isinstance(answer, EngineHealth):
            return answers
        if not isinstance(answer, RequestProgress):
            answers.append(answer)


def eventually(true: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def request(**params: Any) -> Req:
    (req,) = requests_of(SamplingParams(**{"prompt": "x", **params}), MODEL)
    return req


odd = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.lists(st.integers(-5, 5), max_size=3)
    | st.sampled_from([2**63, 2**64 - 1, -1, 0, "high", "euler", "x" * 100_000, [{"name": "a"}]])
    | st.fixed_dictionaries({"name": st.text(max_size=4), "scale": st.floats()}).map(lambda x: [x])
)
fields_of_params = st.sampled_from([*SamplingParams.__dataclass_fields__, "unknown"])


@settings(max_examples=300, deadline=None, suppress_health_check=[Checks.function_scoped_fixture])
@given(
    changed=st.dictionaries(fields_of_params, odd, max_size=4),
    around=st.dictionaries(st.sampled_from(["id", "params", "previews", "more"]), odd, max_size=1),
)
def test_no_submitted_value_brings_rank_0_down(
    peer: zmq.Socket[bytes], changed: dict[str, Any], around: dict[str, Any]
) -> None:
    req = msgspec.to_builtins(request())
    req["params"] |= changed
    message = {"type": "submit", "req": req | around}
    assert ask(peer, [msgspec.msgpack.encode(message)])


@settings(max_examples=100, deadline=None, suppress_health_check=[Checks.function_scoped_fixture])
@given(cut=st.integers(0, 200), flips=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255))))
def test_no_damaged_message_brings_rank_0_down(
    peer: zmq.Socket[bytes], cut: int, flips: list[tuple[int, int]]
) -> None:
    packed = bytearray(encode(Submit(request()))[0])
    for at, value in flips:
        packed[at % len(packed)] = value
    ask(peer, [bytes(packed[: len(packed) - cut])])


def test_text_that_is_not_unicode_is_refused(peer: zmq.Socket[bytes]) -> None:
    packed = encode(Submit(request(prompt="PROMPT")))[0].replace(b"PROMPT", b"x\xed\xa0\x80yz")
    (answer,) = ask(peer, [packed])
    assert answer.error.code in ("protocol_error", "invalid_value")


def test_an_error_of_the_engine_while_handling_a_message_is_its_answer(
    peer: zmq.Socket[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    req = msgspec.structs.replace(request(), id="breaks")
    (answer,) = ask(peer, encode(Submit(req)))
    assert (answer.id, answer.error.code) == ("breaks", "internal_error")
    assert "ZeroDivisionError" in caplog.text


def test_another_clients_request_can_be_neither_taken_nor_cancelled(
    peer: zmq.Socket[bytes], address: str, scheduler: FakeScheduler
) -> None:
    with SchedulerClient(address) as owner:
        req = request()
        handle = owner.submit(req)
        handle.accepted(30)
        (refused,) = ask(peer, encode(Submit(req)))
        assert refused.error.field == "id"
        assert not ask(peer, encode(Cancel(req.id)))
        assert req.id in scheduler.alive
        handle.cancel()
        with pytest.raises(Cancelled):
            handle.result(30)


def test_an_engine_takes_nothing_more_once_it_told_one_request_of_its_death(
    tmp_path: Path,
) -> None:
    gateway = ClientGateway(address_in(tmp_path))
    gateway.open(FakeScheduler(gateway), 1, MODEL)
    with SchedulerClient(address_in(tmp_path)) as client:
        first, second = (client.submit(request()) for _ in range(2))
        for handle in (first, second):
            handle.accepted(30)
        died = WireError.of(EngineDied("rank [0] did not respond for 10 s"))
        gateway.send(first.id, Failed(first.id, died))
        for handle in (first, second):
            with pytest.raises(EngineDied, match="did not respond"):
                handle.result(30)
        with pytest.raises(EngineDied, match="did not respond"):
            client.submit(request())
    gateway.close()


def test_a_client_that_leaves_has_thousands_of_requests_cancelled(
    address: str, scheduler: FakeScheduler
) -> None:
    with SchedulerClient(address) as client:
        handles = [client.submit(request()) for _ in range(5000)]
        for handle in handles:
            handle.accepted(30)
        ids = {handle.id for handle in handles}
    assert eventually(lambda: not ids & scheduler.alive)


def test_a_client_that_never_reads_is_given_up(
    address: str, scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 200_000)
    req = request()
    with zmq.Context() as context, context.socket(zmq.DEALER) as silent:
        silent.linger = 0
        silent.setsockopt(zmq.RCVHWM, 1)
        silent.connect(address)
        silent.send_multipart(encode(Submit(req)))
        for _ in range(20_000):
            silent.send_multipart(encode(HealthCheck()))
        assert eventually(lambda: req.id not in scheduler.alive)


def test_waking_never_blocks() -> None:
    with zmq.Context() as context:
        wakeup = Wakeup(context, "test")
        for _ in range(10_000):
            wakeup.ring()
        assert wakeup.socket.poll(0)
        wakeup.clear()
        assert not wakeup.socket.poll(0)
        wakeup.close()
        wakeup.ring()


def test_what_cannot_be_sent_is_the_callers_error(address: str) -> None:
    with SchedulerClient(address) as client:
        client.wait_ready(30)
        with pytest.raises(UnicodeEncodeError):
            client.submit(msgspec.structs.replace(request(), id="\ud800"))
        assert client.health(30).running == 0


def test_an_error_with_text_that_nothing_can_encode_is_told(address: str) -> None:
    with SchedulerClient(address) as client:
        client.wait_ready(30)
        handle = client.submit(msgspec.structs.replace(request(), id="no text"))
        with pytest.raises(InvalidRequest, match=r"is not \\udcff") as caught:
            handle.result(30)
        assert caught.value.field == "\\udcff"


def test_what_arrived_before_a_client_is_closed_is_told(tmp_path: Path) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        busy.set()
        go_on.wait(120)

    with zmq.Context() as context, context.socket(zmq.ROUTER) as engine:
        engine.linger = 0
        engine.bind(address_in(tmp_path))
        client = SchedulerClient(address_in(tmp_path))
        first, second = client.submit(request()), client.submit(request())
        first._deliver = hold  # type: ignore[method-assign]
        peer, *_ = engine.recv_multipart()
        engine.send_multipart([peer, *encode(RequestAccepted(first.id))])
        assert busy.wait(30)
        cancelled = Failed(second.id, WireError.of(Cancelled("cancelled")))
        engine.send_multipart([peer, *encode(cancelled)])
        assert eventually(lambda: bool(client._socket.poll(0)))
        closing = threading.Thread(target=client.close)
        closing.start()
        assert eventually(lambda: client._closing)
        go_on.set()
        closing.join(30)
        with pytest.raises(Cancelled):
            second.result(0)


def test_two_may_iterate_over_one_generation() -> None:
    handle = RequestHandle("id", lambda _: None)
    ends: list[str] = []

    def follow() -> None:
        try:
            list(handle)
        except MultimodalGenError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(200):
        handle._deliver(Update("id", step, 200, 0, None, None))
    handle._deliver(Cancelled("cancelled"))
    for thread in threads:
        thread.join(30)
    assert ends == ["cancelled", "cancelled"]


def test_errors_told_to_many_are_told_each_their_own(address: str) -> None:
    with SchedulerClient(address) as client:
        client.wait_ready(30)
        client.fail(EngineDied("gone"))
        told = []
        for _ in range(2):
            with pytest.raises(EngineDied, match="gone") as error:
                client.submit(request())
            told.append(error.value)
        assert told[0] is not told[1]


def test_a_request_has_one_terminal_message(
    peer: zmq.Socket[bytes], scheduler: FakeScheduler
) -> None:
    req = request()
    answers = ask(peer, encode(Submit(req)))
    for _ in range(3):
        answers += ask(peer, encode(Cancel(req.id)))
    scheduler.gateway.send(req.id, Failed(req.id, WireError.of(InvalidRequest("a", 1, "late"))))
    answers += ask(peer, encode(Cancel(req.id)))
    assert [answer.error.code for answer in answers if isinstance(answer, Failed)] == ["cancelled"]
