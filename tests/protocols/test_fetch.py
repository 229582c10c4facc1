"""URLs in requests, against a server on this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, ClassVar

import pytest

from multimodal_gen.entrypoints.http.transport.fetch import MediaFetcher, MediaHosts
from multimodal_gen.errors import InvalidRequest

HERE = ("127.0.0.1", "pictures.example")
MAX_BYTES = 10_000


class Pictures(BaseHTTPRequestHandler):
    """Answers by the path, and writes down the Host header."""

    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["host"])
        kind, _, rest = self.path[1:].partition("/")
        status = {"to": 302, "missing": 404}.get(kind, 200)
        self.send_response(status)
        if kind == "to":
            self.send_header("location", rest if "://" in rest else f"/{rest}")
        if kind == "gzip":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        if kind == "slow":
            time.sleep(2)
        self.wfile.write(b"x" * (int(rest) if rest.isdecimal() else 3))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name is this machine's; those that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def fetched(url: str, hosts: tuple[str, ...] = HERE, **options: Any) -> bytes:
    fetcher = MediaFetcher(MediaHosts(hosts), MAX_BYTES, **options)
    return asyncio.run(fetcher.fetch(url, "image"))


def refusal(url: str, hosts: tuple[str, ...] = HERE, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        fetched(url, hosts, **options)
    assert caught.value.field == "image"
    return caught.value.message.rpartition(": ")[2]


def test_without_allowed_hosts_nothing_is_fetched(port: int) -> None:
    assert "send the image itself" in refusal(f"http://127.0.0.1:{port}/", hosts=())


def test_an_address_in_an_allowed_network_is_fetched(port: int) -> None:
    assert fetched(f"http://127.0.0.1:{port}/", ("127.0.0.0/8",)) == b"xxx"


def test_an_allowed_name_is_looked_up_once_and_sent_as_host(port: int, lookups: list[str]) -> None:
    allowed = ("127.0.0.1", f"pictures.example:{port}")
    assert fetched(f"http://Pictures.example:{port}/", allowed) == b"xxx"
    assert lookups == ["pictures.example"]
    assert Pictures.hosts[-1] == f"pictures.example:{port}"


@pytest.mark.usefixtures("lookups")
def test_an_allowed_name_must_not_stand_for_an_inner_address(port: int) -> None:
    hosts = (f"pictures.example:{port}",)
    assert "address is not allowed" in refusal(f"http://pictures.example:{port}/", hosts)


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/",
        "http://pictures.example.evil.example/",
        "http://pictures.example:81/",
        "http://localhost/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://pictures.example@10.0.0.1/",
        "http://user:word@pictures.example/",
        "http://other.example\\@pictures.example/",
        "http://pictures.example\r\nx: y/",
        "http:///x",
        "file:///etc/passwd",
        "gopher://pictures.example/",
        "http://pictures.example:99999/",
    ],
)
def test_what_is_not_allowed_is_not_asked(url: str, lookups: list[str]) -> None:
    assert refusal(url)
    assert not lookups


@pytest.mark.parametrize("path", ["to/7", "to/to/to/7"])
def test_redirects_are_followed(port: int, path: str) -> None:
    assert fetched(f"http://127.0.0.1:{port}/{path}") == b"xxx"


def test_a_redirect_is_checked_as_a_url_is(port: int) -> None:
    assert "host is not allowed" in refusal(f"http://127.0.0.1:{port}/to/http://other.example/")
    assert "address is not allowed" in refusal(f"http://127.0.0.1:{port}/to/http://127.0.0.2/")
    assert "http(s)" in refusal(f"http://127.0.0.1:{port}/to/file://x/etc/passwd")


def test_redirects_have_an_end(port: int) -> None:
    assert "more than 3 times" in refusal(f"http://127.0.0.1:{port}/to/to/to/to/7")


def test_too_many_bytes_are_refused(port: int) -> None:
    assert len(fetched(f"http://127.0.0.1:{port}/of/{MAX_BYTES}")) == MAX_BYTES
    assert "is larger than" in refusal(f"http://127.0.0.1:{port}/of/{MAX_BYTES + 1}")


@pytest.mark.parametrize("path", ["missing/x", "gzip/x"])
def test_what_is_no_plain_answer_is_refused(port: int, path: str) -> None:
    assert refusal(f"http://127.0.0.1:{port}/{path}") == "could not be fetched"


def test_time_has_an_end(port: int) -> None:
    assert refusal(f"http://127.0.0.1:{port}/slow/1", timeout_s=0.2) == "could not be fetched"


def test_a_host_that_does_not_answer_is_said_as_any_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{closed}/") == "could not be fetched"


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::1", False),
        ("64:ff9b:1::808:808", False),
        ("2002:0808:0808::", False),
        ("2001:0:0808:0808::1", False),
        ("2001:db8::1", False),
        ("2001:20::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("fec0::1", False),
        ("ff0e::1", False),
        ("100::1", False),
        ("4000::1", False),
        ("::8.8.8.8", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:127.0.0.1", False),
        ("::", False),
        ("192.0.0.8", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("203.0.113.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_names_may_stand_for_public_addresses_and_allowed_networks(address: str, may: bool) -> None:
    hosts = MediaHosts(("pictures.example", "10.0.0.0/8"))
    assert hosts.may_reach(ip_address(address), named=True) is may


def test_a_star_stands_for_every_name_below() -> None:
    hosts = MediaHosts(("*.example.com",))
    assert hosts.knows("a.example.com", 443, "https")
    assert hosts.knows("a.b.EXAMPLE.com", 443, "https")
    assert not hosts.knows("example.com", 443, "https")
    assert not hosts.knows("aexample.com", 443, "https")
    assert not hosts.knows("a.example.com", 8443, "https")


@pytest.mark.parametrize("entry", ["", "http://a.b", "a b", "*", "*.", "10.0.0.1/8", "a/b"])
def test_what_is_no_host_can_not_be_allowed(entry: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed_media_hosts"):
        MediaHosts((entry,))
