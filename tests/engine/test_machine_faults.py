"""Faults of one engine on two machines, each with processes and a network of its own: what ran is
replayed, and nothing is left."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from machines import ADDRESSES, Machine, can_be_made, connect, until
from PIL import Image

from multimodal_gen.messages.links import LinkKeys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_be_made(), reason="this user may not make namespaces"),
]
CLI = [sys.executable, "-m", "multimodal_gen.entrypoints.cli", "serve", "--device", "cpu"]
URL = "http://127.0.0.1:30000"
STEPS = 150
NOTICED_S = 5
"""Twice what it takes, for machines that are busy with other tests."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def picture(asked: subprocess.Popen[bytes]) -> np.ndarray:
    output, _ = asked.communicate(timeout=300)
    assert asked.returncode == 0
    return np.asarray(Image.open(io.BytesIO(output))).astype(int)


def count(machine: Machine, words: str) -> int:
    return machine.said.read_text().count(words)


def kill_a_rank(other: Machine) -> None:
    os.kill(other.ranks()[0], signal.SIGKILL)


def stop_the_machine(other: Machine) -> None:
    other.signal(signal.SIGSTOP)


def pull_the_cable(other: Machine) -> None:
    other.run("ip", "link", "set", "eth", "down")


def repair(other: Machine) -> None:
    other.signal(signal.SIGCONT)
    other.run("ip", "link", "set", "eth", "up")


FAULTS: list[Callable[[Machine], None]] = [kill_a_rank, stop_the_machine, pull_the_cable]


def test_a_machine_that_fails_costs_no_request(stack: ExitStack, tmp_path: Path) -> None:
    LinkKeys.new().write(tmp_path / "keys")
    first, other = (Machine(stack, tmp_path / name) for name in ("first", "other"))
    connect(first, other)
    place = ["--dist-init-addr", f"{ADDRESSES[0]}:20000", "--key-file", str(tmp_path / "keys")]
    nodes = [
        machine.start(*CLI, "--num-gpus", "2", "--nnodes", "2", "--node-rank", str(rank), *place)
        for rank, machine in enumerate((first, other))
    ]
    until(lambda: is_up(first), 120)
    wanted = picture(first.ask(URL, STEPS))
    for number, fail in enumerate(FAULTS, 1):
        asked = first.ask(URL, STEPS)
        until(lambda: busy(first), 60)
        began = time.monotonic()
        fail(other)
        until(lambda n=number: count(first, "the engine died and is restarting") == n, NOTICED_S)
        noticed = time.monotonic() - began
        repair(other)
        assert np.abs(picture(asked) - wanted).max() <= 1
        print(
            f"{fail.__name__}: noticed {noticed:.2f} s, replayed {time.monotonic() - began:.1f} s"
        )
    first.signal(signal.SIGTERM, "--node-rank")
    assert nodes[0].wait(60) == 0
    nodes[1].send_signal(signal.SIGCONT)  # nsenter stops when what it runs is stopped
    assert nodes[1].wait(60) == 0
    assert not first.processes() + other.processes()


def health(machine: Machine, words: str) -> bool:
    code = f"import httpx2; print(httpx2.get('{URL}/health').text)"
    command = ["nsenter", "-t", str(machine.pid), "-n", sys.executable, "-c", code]
    return words in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_up(machine: Machine) -> bool:
    return health(machine, '"ready"') or health(machine, '"ok"')


def busy(machine: Machine) -> bool:
    return health(machine, '"running":1')
