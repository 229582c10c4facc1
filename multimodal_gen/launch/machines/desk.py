"""Node 0's desk: the other nodes of an engine join here, and are told to start and end their
ranks."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import zmq

from multimodal_gen.errors import InvalidRequest, ProtocolError
from multimodal_gen.launch.machines.messages import (
    FromNode,
    NodeEnd,
    NodeJoin,
    NodeRanksEnded,
    NodeStart,
    ToNode,
)
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.links import HEARTBEAT_S, PROBE, SILENCE_S, Door, LinkKeys, beat
from multimodal_gen.messages.wakeup import Wakeup
from multimodal_gen.version import __version__

log = logging.getLogger(__name__)
REMIND_S = 10.0
"""Interval at which it is said which nodes are missing."""
LAST_WORDS_MS = 500


class NodeDesk:
    """Serves one launch of an engine, on a thread of its own."""

    def __init__(self, address: str, keys: LinkKeys, nnodes: int, start: NodeStart) -> None:
        """Raises InvalidRequest if `address` can't be listened on."""
        self._address = address
        self._nnodes = nnodes
        self._start = start
        self._hosts: dict[int, str] = {}
        self._nodes: dict[bytes, int] = {}
        """Nodes that have joined, by their sockets."""
        self.how_ended: str | None = None
        """Which node or rank was lost, once one is."""
        self._end: NodeEnd | None = None
        self._decoder = Decoder(FromNode)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wakeup = Wakeup(self._context, "desk")
        self._door = Door(self._context, keys)
        self._socket = self._open()
        self._thread = threading.Thread(target=self._run, name="node-desk", daemon=True)
        self._thread.start()

    def close(self, reason: str, *, again: bool) -> None:
        """Tell all nodes to end their ranks, and free the port. No effect if called again."""
        self._end = self._end or NodeEnd(reason=reason, again=again)
        self._wakeup.ring()
        self._thread.join()

    def _open(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = LAST_WORDS_MS
        socket.ipv6 = "[" in self._address
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        beat(socket)
        self._door.guard(socket)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            socket.bind(self._address)
        except zmq.ZMQError as error:
            self._close(socket)
            allowed = f"can't be listened on: {error.strerror}"
            raise InvalidRequest("dist_init_addr", self._address, allowed) from error
        return socket

    # -- the desk's own thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            log.exception("the desk of the nodes failed")
            self.how_ended = f"node 0's desk failed: {error}"
        self._close(self._socket)

    def _serve(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._wakeup.socket, self._monitor):
            poller.register(source, zmq.POLLIN)
        remind_at = suspected_until = time.monotonic()
        while self._end is None:
            if time.monotonic() >= remind_at and len(self._nodes) < self._nnodes - 1:
                self._remind()
                remind_at += REMIND_S
            # A lost connection is told a moment before its socket refuses to send.
            suspects = time.monotonic() < suspected_until
            ready = dict(poller.poll(int((HEARTBEAT_S if suspects else REMIND_S) * 1000)))
            if self._socket in ready:
                self._receive()
            if self._monitor in ready:
                self._monitor.recv_multipart()
                suspected_until = time.monotonic() + SILENCE_S
            if suspects or self._monitor in ready:
                self._look_for_losses()
        for sender in self._nodes:
            self._send(sender, self._end)

    def _remind(self) -> None:
        missing = sorted(set(range(1, self._nnodes)) - set(self._nodes.values()))
        log.warning("waiting for node %s at %s", ", ".join(map(str, missing)), self._address)

    def _receive(self) -> None:
        sender, *frames = self._socket.recv_multipart()
        try:
            message, _ = self._decoder.decode(frames)
        except ProtocolError as error:
            log.warning("dropped a message of a node: %s", error.message)
            return
        if isinstance(message, NodeJoin):
            self._join(sender, message)
        elif isinstance(message, NodeRanksEnded) and sender in self._nodes:
            self.how_ended = self.how_ended or f"{message.how} on {self._called(sender)}"

    def _join(self, sender: bytes, joining: NodeJoin) -> None:
        if refusal := self._refusal(joining):
            log.warning("refused node %d on %s: %s", joining.node, joining.host, refusal)
            # Its number may be free in a moment: that of a process that was killed just now.
            again = joining.node in self._nodes.values()
            self._send(sender, NodeEnd(reason=refusal, again=again))
            return
        self._nodes[sender] = joining.node
        self._hosts[joining.node] = joining.host
        log.info("node %d joined from %s", joining.node, joining.host)
        self._send(sender, self._start)

    def _refusal(self, joining: NodeJoin) -> str:
        """Why a node can't join; empty if it can."""
        if joining.version != __version__:
            return f"it has multimodal_gen {joining.version}, and node 0 {__version__}"
        if joining.nnodes != self._nnodes:
            return f"it was started with --nnodes {joining.nnodes}, and node 0 with {self._nnodes}"
        if joining.node in self._nodes.values():
            return f"node {joining.node} is there already, on {self._hosts[joining.node]}"
        return "" if 0 < joining.node < self._nnodes else "its number is not among the nodes"

    def _look_for_losses(self) -> None:
        for sender in self._nodes:
            if not self._send_frames(sender, [PROBE]):
                self.how_ended = self.how_ended or f"{self._called(sender)} is silent"

    def _called(self, sender: bytes) -> str:
        node = self._nodes[sender]
        return f"node {node} ({self._hosts[node]})"

    def _send(self, sender: bytes, message: ToNode) -> None:
        self._send_frames(sender, encode(message))

    def _send_frames(self, sender: bytes, frames: list[Any]) -> bool:
        """Return False if the node is gone."""
        try:
            self._socket.send_multipart([sender, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return True
        except zmq.ZMQError:
            return False
        return True

    def _close(self, socket: zmq.Socket[bytes]) -> None:
        socket.disable_monitor()
        self._door.close()
        for used in (socket, self._monitor, self._wakeup):
            used.close()
        self._context.term()
