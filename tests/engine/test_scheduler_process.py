"""The Scheduler's process on its own; the test plays its parent, a rank and a client."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from http_serving import eventually
from no_model import MODEL

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import EngineDied
from multimodal_gen.launch.child_environment import child_environment
from multimodal_gen.messages.codec import PIECE_BYTES, Decoder, encode, header_of
from multimodal_gen.messages.links import PROBE, LinkKeys, beat, unlock
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import (
    Ack,
    BatchKey,
    EvaluationRun,
    Phase,
    Plan,
    Prepared,
    RankLoaded,
    RankStarted,
)
from multimodal_gen.messages.rank_args import SchedulerArgs, client_token, socket_name, token_file
from multimodal_gen.messages.validation import requests_of

TOKEN = "the token of this launch"


class PlayedRank:
    """A socket that says what a rank says."""

    def __init__(self, args: SchedulerArgs) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, socket_name(0, token=args.token))
        beat(self._socket)
        if args.keys is not None:
            unlock(self._socket, args.keys.of_client)
        self._socket.connect(args.ranks_address)
        self.say(RankStarted(rank=0))

    def say(self, message: msgspec.Struct, *arrays: np.ndarray) -> None:
        self._socket.send_multipart(encode(message, arrays))

    def plan(self) -> Plan:
        frames = [PROBE]
        while frames == [PROBE]:
            assert self._socket.poll(30_000), "no plan came"
            frames = self._socket.recv_multipart()
        plan, _ = Decoder(Plan).decode(frames)
        assert isinstance(plan, Plan)
        return plan

    def generate(self, pixels: np.ndarray, sound: np.ndarray) -> None:
        """Carry out the plans of one request of one evaluation."""
        prepared = Prepared(batch_keys=(EvaluationRun(BatchKey(16), 1, 1),), decode_chunks=1)
        phase = None
        while phase is not Phase.DECODE:
            plan = self.plan()
            assert plan.work is not None
            phase, ids = plan.work.phase, plan.work.ids
            ack = Ack(number=plan.number, rank=0, advanced=1, seconds=0.001)
            if phase is Phase.ENCODE:
                ack = msgspec.structs.replace(ack, prepared=dict.fromkeys(ids, prepared))
            if phase is Phase.DECODE:
                frames = (header_of(pixels), header_of(sound))
                rates = dict.fromkeys(ids, 48_000)
                ack = msgspec.structs.replace(ack, finished=ids, audio_rates=rates, frames=frames)
            self.say(ack, *([pixels, sound] if ack.finished else []))

    def close(self) -> None:
        self._context.destroy(linger=0)


def local_addresses(folder: Path) -> dict[str, object]:
    return {"client_address": f"ipc://{folder}/client", "ranks_address": f"ipc://{folder}/ranks"}


def remote_addresses(folder: Path) -> dict[str, object]:
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    client, ranks = (f"tcp://127.0.0.1:{port}" for port in ports)
    return {"client_address": client, "ranks_address": ranks, "keys": LinkKeys.new()}


Process = tuple[subprocess.Popen[bytes], SchedulerArgs]


@pytest.fixture(params=[local_addresses, remote_addresses], ids=["here", "over TCP"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    folder = tmp_path / "sockets"
    folder.mkdir()
    addresses: Callable[[Path], dict[str, object]] = request.param
    args = SchedulerArgs(
        engine=EngineArgs(device="cpu"),
        socket_folder=str(folder),
        token=TOKEN,
        model_files="none",
        cache_folder=str(tmp_path / "cache"),
        **addresses(folder),  # type: ignore[arg-type]
    )
    if args.keys is None:
        token_file(args.client_address).write_bytes(client_token(TOKEN))
    packed = msgspec.msgpack.encode(args)
    with subprocess.Popen(
        [sys.executable, "-m", "multimodal_gen.runtime.scheduler"],
        stdin=subprocess.PIPE,
        env=child_environment(),
    ) as started:
        assert started.stdin is not None
        started.stdin.write(len(packed).to_bytes(4, "big") + packed)
        started.stdin.flush()
        yield started, args
        started.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pixels_and_sound_pass_without_torch_or_numpy(process: Process) -> None:
    started, args = process
    rank = PlayedRank(args)
    with SchedulerClient(args.client_address, keys=args.keys) as client:
        rank.say(RankLoaded(rank=0, model=MODEL))
        client.wait_ready(30)
        pixels = np.arange(2 * PIECE_BYTES + 4, dtype=np.uint32).astype(np.uint8)
        pixels = np.ascontiguousarray(pixels.reshape(1, -1, 4, 1))
        (req,) = requests_of(SamplingParams(prompt="x", seed=1), MODEL)
        handle = client.submit(req)
        sound = np.sin(np.arange(PIECE_BYTES // 2, dtype=np.float32)).reshape(2, -1)
        rank.generate(pixels, sound)
        output = handle.result(30)
        assert output.audio is not None
        assert (output.audio.dtype, output.audio_rate) == (np.float32, 48_000)
        np.testing.assert_array_equal(output.pixels, pixels)
        np.testing.assert_array_equal(output.audio, sound)
        libraries = Path(f"/proc/{started.pid}/maps").read_text()
        assert "msgspec" in libraries
        assert "numpy" not in libraries
        assert "torch" not in libraries
    rank.close()


def test_a_rank_that_goes_while_it_loads_ends_the_engine_with_its_name(process: Process) -> None:
    started, args = process
    rank = PlayedRank(args)
    with SchedulerClient(args.client_address, keys=args.keys) as client:
        rank.say(LoadingProgress(component="vae", loaded_bytes=1, total_bytes=2))
        with pytest.raises(EngineDied, match="rank 0 is silent"):
            client.wait_ready(30, show=lambda _: rank.close())
    assert started.wait(30) == 70


def test_the_process_ends_with_its_parent_and_removes_the_folder(process: Process) -> None:
    started, args = process
    assert started.stdin is not None
    started.stdin.close()
    assert started.wait(30) == 0
    assert eventually(lambda: not Path(args.socket_folder).exists())
