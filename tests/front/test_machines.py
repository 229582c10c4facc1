"""What lets several machines share an engine, without one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from unittest import mock

import psutil
import pytest
import zmq
from strangers import answer_to_bytes, keys_of_strangers, stranger

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.cli.main import main
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.launcher import launcher_for
from multimodal_gen.launch.machines import desk as desk_module
from multimodal_gen.launch.machines import node as node_module
from multimodal_gen.launch.machines.desk import NodeDesk
from multimodal_gen.launch.machines.messages import NodeEnd, NodeJoin, NodeStart
from multimodal_gen.launch.machines.network import interface_towards
from multimodal_gen.launch.machines.node import JoiningNode
from multimodal_gen.launch.machines.torchrun import is_idle_worker, with_torchrun
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.links import LinkKeys, unlock
from multimodal_gen.messages.rank_args import RankArgs

KEYS = LinkKeys.new()
START = NodeStart(
    args=RankArgs(
        rank=0,
        engine=EngineArgs(),
        ranks_address="tcp://127.0.0.1:1",
        socket_folder="",
        token="the token of this launch",
        model_folder="",
        model_name="test",
    ),
    module="none",
)
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "2",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def desk(address: str) -> Iterator[NodeDesk]:
    desk = NodeDesk(address, KEYS, 3, START)
    yield desk
    desk.close("the test is over", again=False)


@pytest.fixture
def join(address: str) -> Iterator[Callable[[NodeJoin], zmq.SyncSocket]]:
    """Connects a node, which sends a message."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())

        def connect(joining: NodeJoin) -> zmq.SyncSocket:
            node = stack.enter_context(context.socket(zmq.DEALER))
            node.linger = 0
            unlock(node, KEYS.of_client)
            node.connect(address)
            node.send_multipart(encode(joining))
            return node

        yield connect


def how_ended(desk: NodeDesk) -> str | None:
    end = time.monotonic() + 10
    while desk.how_ended is None and time.monotonic() < end:
        threading.Event().wait(0.01)
    return desk.how_ended


def heard(node: zmq.SyncSocket) -> NodeStart | NodeEnd:
    decoder = Decoder(NodeStart | NodeEnd)
    while True:
        assert node.poll(10_000), "nothing came"
        if (frames := node.recv_multipart()) != [b""]:
            return decoder.decode(frames)[0]


def a_join(node: int = 1, **given: object) -> NodeJoin:
    return NodeJoin(**{"node": node, "nnodes": 3, "host": "b", **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("knows", ["no keys", "keys of others", "the public key"])
def test_who_lacks_the_keys_is_not_heard_at_the_desk(
    desk: NodeDesk, address: str, knows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = mock.Mock()
    monkeypatch.setattr(desk, "_decoder", decode)
    with stranger(address, keys_of_strangers(KEYS)[knows], [*encode(a_join())]) as client:
        assert not client.poll(0)
    assert not decode.mock_calls


def test_a_peer_that_does_not_speak_the_protocol_learns_nothing(
    desk: NodeDesk, address: str
) -> None:
    answer = answer_to_bytes(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 100)
    assert len(answer) <= 64, "more than the greeting of ZeroMQ"
    assert START.args.token.encode() not in answer


def test_a_node_that_joins_is_told_to_start_and_to_end(
    desk: NodeDesk, join: Callable[[NodeJoin], zmq.SyncSocket]
) -> None:
    node = join(a_join())
    assert heard(node) == START
    desk.close("rank 2 was killed", again=True)
    assert heard(node) == NodeEnd(reason="rank 2 was killed", again=True)


@pytest.mark.parametrize(
    ("joining", "said"),
    [
        (a_join(version="0.0.1"), "it has multimodal_gen 0.0.1"),
        (a_join(nnodes=2), "it was started with --nnodes 2, and node 0 with 3"),
        (a_join(node=7), "its number is not among the nodes"),
    ],
)
def test_a_node_that_can_not_be_of_this_engine_is_refused_with_the_reason(
    desk: NodeDesk, join: Callable[[NodeJoin], zmq.SyncSocket], joining: NodeJoin, said: str
) -> None:
    end = heard(join(joining))
    assert isinstance(end, NodeEnd)
    assert said in end.reason
    assert not end.again


def test_a_number_that_is_taken_is_refused_for_now(
    desk: NodeDesk, join: Callable[[NodeJoin], zmq.SyncSocket]
) -> None:
    assert heard(join(a_join())) == START
    end = heard(join(a_join()))
    assert isinstance(end, NodeEnd)
    assert end.again
    assert "node 1 is there already, on b" in end.reason


def test_a_node_that_is_gone_is_noticed_and_named(
    desk: NodeDesk, join: Callable[[NodeJoin], zmq.SyncSocket]
) -> None:
    node = join(a_join())
    heard(node)
    node.close()
    assert how_ended(desk) == "node 1 (b) is silent"


def test_a_node_is_noticed_whose_socket_still_took_the_first_probe(
    desk: NodeDesk, join: Callable[[NodeJoin], zmq.SyncSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = join(a_join())
    heard(node)
    monkeypatch.setattr(desk, "_send_frames", mock.Mock(side_effect=chain([True], repeat(False))))
    node.close()
    assert how_ended(desk) == "node 1 (b) is silent"


def test_a_desk_that_can_not_listen_says_where(desk: NodeDesk, address: str) -> None:
    with pytest.raises(InvalidRequest, match=f"dist_init_addr='{address}': can't be listened on"):
        NodeDesk(address, KEYS, 3, START)


def test_a_node_with_other_keys_ends_and_says_so(
    desk: NodeDesk, address: str, tmp_path: Path
) -> None:
    strange = keys_of_strangers(KEYS)["the public key"]
    assert strange is not None
    strange.write(tmp_path / "keys")
    node = JoiningNode(EngineArgs(), machines_of(address, tmp_path / "keys"))
    with pytest.raises(MultimodalGenError, match="has other keys"):
        node.run()


def test_a_node_waits_for_node_0_and_says_so(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    KEYS.write(tmp_path / "keys")
    node = JoiningNode(EngineArgs(), machines_of(address, tmp_path / "keys"))
    monkeypatch.setattr(node_module.log, "warning", lambda *told: (said.append(told), node.stop()))
    said: list[tuple[object, ...]] = []
    node.run()
    assert said == [("waiting for node 0 at %s", address)]


def machines_of(address: str, key_file: Path) -> MachineArgs:
    place = address.removeprefix("tcp://")
    return MachineArgs(nnodes=3, node_rank=1, dist_init_addr=place, key_file=str(key_file))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nnodes": 2}, "dist_init_addr=None: must be given with nnodes=2"),
        ({"nnodes": 2, "dist_init_addr": "a:1"}, "key_file=None: must be given"),
        ({"nnodes": 2, "node_rank": 2}, "node_rank=2: must be 0 to 1"),
        ({"node_rank": 1}, "node_rank=1: must be 0 to 0 with nnodes=1"),
        ({"dist_init_addr": "a"}, "dist_init_addr='a': must be HOST:PORT"),
        ({"dist_init_addr": "a:65535"}, "a port below 65535"),
        ({"launcher": "ray", "dist_init_addr": "a:1"}, "must not be given with launcher=ray"),
        ({"launcher": "slurm"}, "launcher='slurm': must be one of local, ray"),
    ],
)
def test_arguments_of_machines_that_do_not_go_together_are_refused(
    given: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        MachineArgs(**given)  # type: ignore[arg-type]


def test_every_machine_has_as_many_ranks() -> None:
    machines = MachineArgs(nnodes=2, dist_init_addr="a:1", key_file="k")
    with pytest.raises(InvalidRequest, match="num_gpus=3: must be a multiple of nnodes=2"):
        machines.check_ranks(3)
    with pytest.raises(InvalidRequest, match="nnodes=2: must be 1 with several engines here"):
        ServerArgs(num_gpus=2, nnodes=2, dist_init_addr="a:1", key_file="k", replicas=2)


def test_node_0_needs_the_keys_of_the_side_that_listens(tmp_path: Path) -> None:
    KEYS.of_client.write(tmp_path / "keys")
    with pytest.raises(InvalidRequest, match=r"key_file=.*is for the sides that connect"):
        launcher_for(EngineArgs(), MachineArgs(key_file=str(tmp_path / "keys")), tmp_path)


def test_keys_are_made_for_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", str(tmp_path / "k")]) == 0
    listening, connecting = LinkKeys.read(tmp_path / "k"), LinkKeys.read(tmp_path / "k.client")
    assert listening.of_client == connecting
    assert not connecting.server_secret
    shown = capsys.readouterr().out
    assert shown.split() == [str(tmp_path / "k"), str(tmp_path / "k.client")]
    assert main(["keys", str(tmp_path / "k")]) == 2
    assert LinkKeys.read(tmp_path / "k") == listening


def test_the_first_worker_of_each_machine_under_torchrun_is_its_node() -> None:
    engine, machines = with_torchrun(EngineArgs(), MachineArgs(), {})
    assert (engine.num_gpus, machines.nnodes) == (1, 1)
    given = MachineArgs(key_file="keys")
    engine, machines = with_torchrun(EngineArgs(), given, TORCHRUN)
    assert engine.num_gpus == 4
    assert (machines.nnodes, machines.node_rank) == (2, 1)
    assert machines.dist_init_addr == "node-a:29501"
    assert not is_idle_worker(TORCHRUN)
    assert is_idle_worker({**TORCHRUN, "LOCAL_RANK": "1"})
    assert not is_idle_worker({"LOCAL_RANK": "1"}), "of another launcher"
    with pytest.raises(InvalidRequest, match="key_file"):
        with_torchrun(EngineArgs(), MachineArgs(), TORCHRUN)


def test_what_was_given_goes_before_what_torchrun_tells() -> None:
    given = MachineArgs(key_file="keys", dist_init_addr="node-b:20000")
    engine, machines = with_torchrun(EngineArgs(num_gpus=16), given, TORCHRUN)
    assert engine.num_gpus == 16
    assert machines.dist_init_addr == "node-b:20000"


def test_tensors_go_by_the_interface_that_leads_to_node_0() -> None:
    names = [name for name, each in psutil.net_if_addrs().items() if _loopback(each)]
    assert interface_towards("127.0.0.1") in names
    assert interface_towards("127.0.0.3") in names


def _loopback(addresses: list[object]) -> bool:
    return any(getattr(each, "address", "") == "127.0.0.1" for each in addresses)


def test_who_is_missing_is_said_again_and_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[object, ...]] = []
    twice = threading.Event()

    def warn(*told: object) -> None:
        said.append(told)
        if len(said) == 2:
            twice.set()

    monkeypatch.setattr(desk_module, "REMIND_S", 0.01)
    monkeypatch.setattr(desk_module.log, "warning", warn)
    desk = NodeDesk(address, KEYS, 3, START)
    assert twice.wait(10)
    desk.close("", again=False)
    assert said[0] == ("waiting for node %s at %s", "1, 2", address)
