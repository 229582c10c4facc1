"""What reaches the engine's sockets without its token, or is no message, ends nothing."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import zmq
from engines import pids_of, start_engine, submit_to

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.errors import EngineDied
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.codec import MAX_FRAME_BYTES, encode
from multimodal_gen.messages.plan import Ack, RankLoaded
from multimodal_gen.messages.rank_args import client_token, socket_name, token_file
from multimodal_gen.messages.request import HealthCheck, Hello, Shutdown
from multimodal_gen.runtime.scheduler.rank_links import RankLinks

TOKEN = "the token of this launch"
ACK = encode(Ack(number=0, rank=0))
JUNK: list[list[Any]] = [[b"\xc1"], [], [b""], [b"\x80"], [b"{}"], [*ACK, b"more"], [b"\x91" * 999]]
"""Frames that are no message of a rank."""

Peer = Callable[[str, bytes], zmq.Socket[bytes]]


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Connects a socket with an identity."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack = contextlib.ExitStack()

    def connect(address: str, identity: bytes) -> zmq.Socket[bytes]:
        socket = stack.enter_context(context.socket(zmq.DEALER))
        socket.linger = 0
        socket.setsockopt(zmq.IDENTITY, identity)
        socket.connect(address)
        return socket

    yield connect
    stack.close()
    context.term()


@pytest.fixture
def links(tmp_path: Path) -> Iterator[RankLinks]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links = RankLinks(context, f"ipc://{tmp_path}/ranks", 2, TOKEN)
    yield links
    links.close(0)
    context.term()


def heard(links: RankLinks) -> Any:
    """The next message of a rank, or None for one that was dropped."""
    assert links.socket.poll(30_000), "nothing came"
    received = links.receive()
    return None if received is None else received[0]


def check_until(links: RankLinks, end: float) -> None:
    """Check whenever that is due, as the Scheduler does."""
    while time.monotonic() < end:
        links.monitor.poll(int(min(links.patience, end - time.monotonic()) * 1000))
        links.check()


@pytest.mark.parametrize("identity", ["0", "0 answers", "1", f"2 {TOKEN}", "0 wrong", TOKEN])
def test_a_peer_without_the_token_is_no_rank(
    identity: str, links: RankLinks, peer: Peer, tmp_path: Path
) -> None:
    stranger = peer(f"ipc://{tmp_path}/ranks", identity.encode())
    stranger.send_multipart(encode(RankLoaded(rank=0)))
    assert heard(links) is None
    assert links.dropped.count == 1


def test_junk_is_dropped_and_counted_and_the_rank_is_heard_on(
    links: RankLinks, peer: Peer, tmp_path: Path
) -> None:
    rank = peer(f"ipc://{tmp_path}/ranks", socket_name(1, "answers", TOKEN))
    for frames in JUNK:
        rank.send_multipart(frames or [b""])
        assert heard(links) is None
    rank.send_multipart(encode(Ack(number=3, rank=1)))
    assert heard(links) == Ack(number=3, rank=1)
    assert links.dropped.count == len(JUNK)


def test_a_rank_speaks_for_itself_only(links: RankLinks, peer: Peer, tmp_path: Path) -> None:
    rank = peer(f"ipc://{tmp_path}/ranks", socket_name(1, "answers", TOKEN))
    for other in (0, -1, 2, 10**6):
        rank.send_multipart(encode(Ack(number=0, rank=other)))
        assert heard(links) is None
    assert links.dropped.count == 4


def test_a_rank_is_noticed_whose_socket_still_took_the_first_probe(
    links: RankLinks, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = peer(f"ipc://{tmp_path}/ranks", socket_name(0, token=TOKEN))
    rank.send_multipart(ACK)
    assert heard(links) == Ack(number=0, rank=0)
    monkeypatch.setattr(links, "_sent", mock.Mock(side_effect=chain([True], repeat(False))))
    rank.close()
    with pytest.raises(EngineDied, match="rank 0 is silent"):
        check_until(links, time.monotonic() + 10)


def test_a_message_of_any_size_is_not_taken(links: RankLinks) -> None:
    assert links.socket.getsockopt(zmq.MAXMSGSIZE) == MAX_FRAME_BYTES


@pytest.fixture(scope="module")
def two_ranks() -> Iterator[EngineProcess]:
    with start_engine(num_gpus=2) as engine:
        engine.wait_ready(300)
        yield engine


def test_strangers_at_the_sockets_do_not_end_the_engine(
    two_ranks: EngineProcess, peer: Peer
) -> None:
    folder = Path(two_ranks.address.removeprefix("ipc://")).parent
    for name in ("client", "ranks"):
        for identity in (b"0", b"1", b"0 answers", b"1 answers", os.urandom(40)):
            stranger = peer(
                f"ipc://{folder}/{name}", b"x" + identity if name == "client" else identity
            )
            for frames in (*JUNK, ACK, encode(Hello()), encode(Shutdown())):
                stranger.send_multipart(frames or [b""])
    assert submit_to(two_ranks).result(300).pixels.any()
    assert two_ranks.client.died is None


def test_a_client_without_the_token_gets_no_answer(two_ranks: EngineProcess, peer: Peer) -> None:
    stranger, friend = (
        peer(two_ranks.address, identity)
        for identity in (b"stranger", token_file(two_ranks.address).read_bytes() + b"friend")
    )
    for socket in (stranger, friend):
        socket.send_multipart(encode(HealthCheck()))
    assert friend.poll(30_000)
    assert not stranger.poll(0)


def test_the_clients_token_is_private_and_not_the_ranks(
    two_ranks: EngineProcess, tmp_path: Path
) -> None:
    path = token_file(two_ranks.address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_bytes()) == 64
    assert TOKEN.encode() not in client_token(TOKEN)
    with SchedulerClient(two_ranks.address) as client:
        client.wait_ready(60)


def test_no_token_is_on_a_command_line_or_in_an_environment(two_ranks: EngineProcess) -> None:
    token = token_file(two_ranks.address).read_bytes()
    for pid in pids_of(two_ranks):
        for name in ("cmdline", "environ"):
            assert token not in Path(f"/proc/{pid}/{name}").read_bytes()
