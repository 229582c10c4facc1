"""Cancels work when its client disconnects."""

from __future__ import annotations

import asyncio

from fastapi import Request

from multimodal_gen.client.request_handle import Output
from multimodal_gen.errors import Cancelled
from multimodal_gen.serving.task import Task


async def unless_gone(request: Request, task: Task) -> list[Output]:
    """Outputs of `task`. If the client disconnects first, or the wait is cancelled, the task is
    cancelled and this raises Cancelled. The request's body must have been read."""
    working = asyncio.create_task(task.wait())
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled("the client disconnected")
        return working.result()
    finally:
        task.cancel()
        for each in (working, watching):
            each.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
