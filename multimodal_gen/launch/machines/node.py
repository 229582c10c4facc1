"""A node other than 0: it runs its share of an engine's ranks, for one launch after the other."""

from __future__ import annotations

import logging
import platform
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.machines.messages import (
    FromNode,
    NodeEnd,
    NodeJoin,
    NodeRanksEnded,
    NodeStart,
    ToNode,
)
from multimodal_gen.launch.machines.network import interface_towards, resolve, tcp_address
from multimodal_gen.launch.model_path import find_model_files
from multimodal_gen.launch.private_folder import PrivateFolder
from multimodal_gen.launch.rank_processes import RankProcesses, on_this_host
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.links import LinkKeys, beat, unlock
from multimodal_gen.messages.rank_args import LONGEST_SOCKET_NAME, RankPlace

log = logging.getLogger(__name__)
WATCH_MS = 50
REMIND_S = 10.0
AGAIN_S = 0.5
"""Time between the end of a launch and the next try to join."""


class JoiningNode:
    """Joins node 0 again and again, until that says that the engine was stopped."""

    def __init__(self, engine: EngineArgs, machines: MachineArgs) -> None:
        """Raises InvalidRequest for keys that can't be read, and a host that is not known."""
        assert machines.key_file is not None
        self._engine = engine
        self._number = machines.node_rank
        self._nnodes = machines.nnodes
        self._keys = LinkKeys.read(user_path(machines.key_file)).of_client
        host, port = machines.meeting_place
        self._host = resolve("dist_init_addr", host)
        self._port = port
        self._address = tcp_address(self._host, port)
        self._stop = threading.Event()

    def run(self) -> None:
        """Run until node 0 stops the engine, or `stop` is called. Raises MultimodalGenError if node
        0 refuses this node, or can't run."""
        while not self._stop.is_set():
            with _Launch(self._host, self._port, self._keys) as launch:
                end = self._one(launch)
            if end is None or not (end.reason or end.again):
                return
            if not end.again:
                raise MultimodalGenError(f"node 0 at {self._address}: {end.reason}")
            log.warning("node 0 at %s: %s; joining again", self._address, end.reason)
            self._stop.wait(AGAIN_S)

    def stop(self) -> None:
        """End the ranks, and `run`. Any thread may call it, and a signal's handler."""
        self._stop.set()

    def _one(self, launch: _Launch) -> NodeEnd | None:
        """Run the ranks of one launch. Returns how it ended; None if this node was stopped."""
        launch.send(NodeJoin(node=self._number, nnodes=self._nnodes, host=platform.node()))
        remind_at = 0.0
        while not self._stop.is_set():
            if launch.ranks is None and time.monotonic() >= remind_at:
                log.warning("waiting for node 0 at %s", self._address)
                remind_at = time.monotonic() + REMIND_S
            match launch.hear():
                case NodeStart() as start:
                    self._start(launch, start)
                case NodeEnd() as end:
                    return end
        return None

    def _start(self, launch: _Launch, start: NodeStart) -> None:
        try:
            launch.start(start, self._own(start), self._number)
        except (MultimodalGenError, OSError) as error:
            log.error("the ranks can't be started: %s", error)
            launch.send(NodeRanksEnded(how=f"{error}:"))

    def _own(self, start: NodeStart) -> EngineArgs:
        """Arguments of the engine as node 0 has them, with the paths of this node."""
        own, given = self._engine, start.args.engine
        return replace(
            given,
            model_path=own.model_path or given.model_path,
            base_model_path=own.base_model_path or given.base_model_path,
            component=own.component or given.component,
            revision=own.revision or given.revision,
            lora_dir=own.lora_dir or start.lora_dir,
            control_dir=own.control_dir or start.control_dir,
        )


class _Launch:
    """A connection to node 0, and the ranks that it had started. A context manager."""

    def __init__(self, host: str, port: int, keys: LinkKeys) -> None:
        self.ranks: RankProcesses | None = None
        self._host = host
        self._ranks_address = tcp_address(host, port + 1)
        self._told = False
        self._stack = ExitStack()
        self._decoder = Decoder(ToNode)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stack.callback(context.term)
        self._socket = self._stack.enter_context(context.socket(zmq.DEALER))
        self._socket.linger = WATCH_MS
        self._socket.ipv6 = ":" in host
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        beat(self._socket)
        unlock(self._socket, keys)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._stack.callback(self._monitor.close)
        self._stack.callback(self._socket.disable_monitor)
        self._socket.connect(tcp_address(host, port))

    def __enter__(self) -> _Launch:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.ranks is not None:
                self.ranks.kill()
        finally:
            self._stack.close()

    def send(self, message: FromNode) -> None:
        self._socket.send_multipart(encode(message))

    def hear(self) -> NodeStart | NodeEnd | None:
        """Next message of node 0, or its loss; None if that is nothing for a moment."""
        if self._socket.poll(WATCH_MS):
            frames = self._socket.recv_multipart()
            return self._decoder.decode(frames)[0] if frames != [b""] else None
        if self._monitor.poll(0):
            return self._lost(recv_monitor_message(self._monitor)["event"])
        if self.ranks is not None and not self._told and (how := self.ranks.how_ended()):
            self._told = True
            self.send(NodeRanksEnded(how=how))
        return None

    def _lost(self, event: int) -> NodeEnd:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return NodeEnd(reason="has other keys: --key-file must be equal on all", again=False)
        if self.ranks is None:
            return NodeEnd(reason="closed the connection; has it the same --key-file?", again=True)
        return NodeEnd(reason="was lost", again=True)

    def start(self, start: NodeStart, engine: EngineArgs, node: int) -> None:
        """Start the ranks of node `node`. Raises MultimodalGenError and OSError."""
        model = find_model_files(
            engine.model_path, engine.revision, engine.base_model_path, engine.component_files
        )
        folder = PrivateFolder(longest_name=LONGEST_SOCKET_NAME)
        self._stack.callback(folder.remove)
        count = start.args.place.local_ranks
        place = RankPlace(local_ranks=count, interface=interface_towards(self._host))
        args = msgspec.structs.replace(
            start.args, engine=engine, place=place, ranks_address=self._ranks_address
        )
        ranks = range(node * count, (node + 1) * count)
        self.ranks = RankProcesses(on_this_host(args, model, folder.path), ranks, start.module)


def run_node(engine: EngineArgs, machines: MachineArgs) -> int:
    """Run a node until node 0 stops the engine, or SIGTERM or SIGINT comes. Returns the exit
    status. Raises MultimodalGenError, as `JoiningNode`."""
    node = JoiningNode(engine, machines)

    def stop(number: int, frame: FrameType | None) -> None:
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    node.run()
    return 0
