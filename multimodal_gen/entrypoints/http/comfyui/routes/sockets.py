"""`/ws`: events for the client that opened the socket."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import HTTPException, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError

from multimodal_gen.entrypoints.http.bodies.json_body import parse_json
from multimodal_gen.entrypoints.http.comfyui.execution import Executor
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompts
from multimodal_gen.entrypoints.http.comfyui.routes.channels import Channel, Channels
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import InvalidRequest

_TRY_LATER = 1013
_MAX_ID = 128


class Sockets:
    """Serves clients' WebSockets."""

    def __init__(
        self,
        channels: Channels,
        prompts: Prompts,
        executor: Executor,
        features: dict[str, Any],
    ) -> None:
        self._channels = channels
        self._prompts = prompts
        self._executor = executor
        self._features = features

    async def serve(self, socket: WebSocket) -> None:
        """Serve until the client disconnects or stops reading."""
        owner = owner_of(socket)
        client_id = socket.query_params.get("clientId", "")[:_MAX_ID] or secrets.token_hex(16)
        if self._channels.are_full:
            await socket.close(_TRY_LATER)
            return
        await socket.accept()
        channel = self._channels.open(owner, client_id)
        channel.tell("status", {"status": self._executor.status(owner), "sid": client_id})
        for prompt in self._prompts.queue(owner):
            if prompt.client_id == client_id and prompt.node is not None:
                channel.tell("executing", {"node": prompt.node, "prompt_id": prompt.id})
        workers = [
            asyncio.create_task(self._hear(socket, channel)),
            asyncio.create_task(_send(socket, channel)),
            asyncio.create_task(channel.lost.wait()),
        ]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._channels.close(owner, client_id, channel)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if channel.lost.is_set():
            await socket.close()

    async def _hear(self, socket: WebSocket, channel: Channel) -> None:
        """Read messages; clients only send their feature flags."""
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            if (flags := _flags(message.get("text") or "")) is not None:
                channel.wants_metadata = flags.get("supports_preview_metadata") is True
                channel.tell("feature_flags", self._features)


async def _send(socket: WebSocket, channel: Channel) -> None:
    while True:
        message = await channel.next()
        try:
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
        except WebSocketDisconnect:
            return


def _flags(text: str) -> dict[str, Any] | None:
    try:
        message = parse_json(text.encode())
    except (HTTPException, RequestValidationError, InvalidRequest, UnicodeEncodeError):
        return None
    if not isinstance(message, dict) or message.get("type") != "feature_flags":
        return None
    data = message.get("data")
    return data if isinstance(data, dict) else {}
