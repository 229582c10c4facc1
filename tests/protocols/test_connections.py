"""Clients that are slow, silent or too many, over real sockets: others go on being served."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from http_serving import address_of, app_without_engine, eventually, serving

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.transport.connections import uvicorn_options
from multimodal_gen.entrypoints.http.transport.listen import listen

TIMEOUT_S = 1.0
HEAD = (
    b"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app_without_engine(), **uvicorn_options(TIMEOUT_S)) as url:
        yield url


@pytest.fixture
def raw(url: str) -> Iterator[socket.socket]:
    with socket.create_connection(address_of(url), timeout=30) as raw:
        yield raw


def is_closed(raw: socket.socket) -> bool:
    with contextlib.suppress(TimeoutError):
        raw.settimeout(0.01)
        try:
            return raw.recv(4096) == b""
        except ConnectionResetError:
            return True
    return False


def trickled(raw: socket.socket, piece: bytes) -> bool:
    """Whether the connection is closed on one that sends `piece` ten times a second."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(piece)
        if is_closed(raw):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD, HEAD + b"content-length: 9\r\n\r\n{"])
def test_who_falls_silent_is_let_go(raw: socket.socket, sent: bytes) -> None:
    raw.sendall(sent)
    assert eventually(lambda: is_closed(raw))


def test_headers_must_not_trickle(raw: socket.socket) -> None:
    raw.sendall(HEAD)
    assert trickled(raw, b"x-a: b\r\n")


def test_a_body_must_not_trickle(raw: socket.socket) -> None:
    raw.sendall(HEAD + b"content-length: 100000\r\n\r\n")
    assert trickled(raw, b" ")


def test_a_body_that_nobody_reads_has_an_end(raw: socket.socket) -> None:
    raw.sendall(b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
    assert trickled(raw, b"1\r\n \r\n")


def test_a_second_request_has_a_deadline_too(raw: socket.socket) -> None:
    raw.sendall(b"GET /liveness HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert raw.recv(4096).startswith(b"HTTP/1.1 200")
    raw.sendall(b"GET /live")
    assert eventually(lambda: is_closed(raw))


def test_a_slow_body_that_keeps_coming_is_read() -> None:
    body = b"{" + b" " * 10_000
    options = uvicorn_options(2.0)  # less than it takes in all, far more than between two pieces
    with (
        serving(app_without_engine(), **options) as url,
        socket.create_connection(address_of(url), timeout=30) as raw,
    ):
        raw.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 2000):
            raw.sendall(body[at : at + 2000])
            time.sleep(0.5)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400")  # as the app says of `{`


def test_an_idle_connection_serves_again(url: str) -> None:
    with httpx2.Client(base_url=url) as client:
        assert client.get("/liveness").is_success
        time.sleep(3 * TIMEOUT_S)
        assert client.get("/liveness").is_success


def test_headers_without_end_are_refused(raw: socket.socket) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It may not read them all.
        raw.sendall(HEAD + b"x: " + b"a" * 100_000)
    assert raw.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_thousand_silent_clients_keep_nobody_out() -> None:
    with (
        serving(app_without_engine(), **uvicorn_options(60)) as url,
        contextlib.ExitStack() as held,
    ):
        for at in range(1000):
            raw = held.enter_context(socket.create_connection(address_of(url), timeout=30))
            raw.sendall((b"", b"GET / HT", HEAD, HEAD + b"content-length: 9\r\n\r\n{")[at % 4])
        for _ in range(20):
            assert httpx2.get(url + "/liveness", timeout=30).is_success


def test_more_clients_than_files_make_room_for_the_next() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = uvicorn_options(60)
    options["http"].keywords["waiting"].capacity = 20
    with serving(app_without_engine(), **options) as url, contextlib.ExitStack() as held:
        silent = [
            held.enter_context(socket.create_connection(address_of(url), timeout=30))
            for _ in range(100)
        ]
        for _ in range(30):
            assert httpx2.get(url + "/liveness", timeout=30).is_success
        assert eventually(lambda: is_closed(silent[0]))
        assert not is_closed(silent[-1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_kernel_ends_connections_that_take_no_answer() -> None:
    with listen(ServerArgs(port=0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
