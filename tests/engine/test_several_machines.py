"""One engine on two addresses, as on two machines: the same pictures, and an end that all hear."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from engines import is_running, submit_to
from strangers import answer_to_bytes, keys_of_strangers, stranger

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.errors import EngineDied
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.machines.node import JoiningNode
from multimodal_gen.messages.codec import encode
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.plan import RankStarted
from multimodal_gen.messages.request import HealthCheck, Hello

ARGS = EngineArgs(device="cpu", num_gpus=2)


def two_free_ports(host: str) -> int:
    """The first of two ports in a row that are free."""
    while True:
        with socket.create_server((host, 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server((host, port + 1)).close()
            except OSError:
                continue
        return port


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    LinkKeys.new().write(path)
    return path


@contextmanager
def running(node: JoiningNode) -> Iterator[None]:
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        node.stop()
        thread.join(30)
    assert not thread.is_alive()


def ranks_of_others(engine: EngineProcess) -> list[int]:
    """Children of this process that run a rank that is not the engine's own."""
    me = Path(f"/proc/{os.getpid()}/task")
    children = [
        int(pid) for task in me.iterdir() for pid in (task / "children").read_text().split()
    ]
    ranks = [
        pid for pid in children if b"runtime.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return [pid for pid in ranks if pid not in engine.pids]


def test_two_machines_give_the_pictures_of_one_and_end_together(
    engine: EngineProcess, key_file: Path
) -> None:
    wanted = submit_to(engine, seed=3).result(300).pixels
    place = f"127.0.0.2:{(port := two_free_ports('127.0.0.2'))}"
    own = {"nnodes": 2, "dist_init_addr": place, "key_file": str(key_file)}
    node = JoiningNode(EngineArgs(), MachineArgs(node_rank=1, **own))
    listen = f"tcp://127.0.0.2:{port + 2}"
    with (
        running(node),
        EngineProcess.start(ARGS, machines=MachineArgs(**own), listen=listen) as two,
    ):
        two.wait_ready(300)
        pixels = submit_to(two, seed=3).result(300).pixels
        assert np.abs(pixels.astype(int) - wanted).max() <= 1
        with SchedulerClient(listen, keys=LinkKeys.read(key_file).of_client) as elsewhere:
            assert elsewhere.wait_ready(60) == two.client.model
        for address in (listen, f"tcp://127.0.0.2:{port + 1}"):
            check_strangers(address, LinkKeys.read(key_file))
        before = set(ranks_of_others(two)) - set(engine.pids)
        (victim,) = before
        request = submit_to(two, num_inference_steps=500)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(EngineDied, match=r"rank 1 (was killed by SIGKILL on node 1|is silent)"):
            request.result(30)
        two.wait_lost()
        assert not any(map(is_running, two.pids))


def check_strangers(address: str, keys: LinkKeys) -> None:
    for strange in keys_of_strangers(keys).values():
        for message in (Hello(), HealthCheck(), RankStarted(rank=0)):
            with stranger(address, strange, [bytes(frame) for frame in encode(message)]) as client:
                assert not client.poll(0)
    assert len(answer_to_bytes(address, b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100)) <= 64
