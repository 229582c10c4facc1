"""Prompt routes: submit, queue, interrupt and history."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.background import BackgroundTask

from multimodal_gen.entrypoints.http.bodies.reading import read_bytes
from multimodal_gen.entrypoints.http.comfyui.errors import InvalidPrompt, json_response
from multimodal_gen.entrypoints.http.comfyui.execution import Executor
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompts
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultCache
from multimodal_gen.entrypoints.http.comfyui.routes.queries import InvalidQuery, whole_number
from multimodal_gen.entrypoints.http.comfyui.routes.schema import (
    FREE,
    INTERRUPT,
    PAGE,
    PROMPT,
    QUEUE,
    Accepted,
    refusals,
)
from multimodal_gen.entrypoints.http.comfyui.submission import PromptSubmitter, object_of
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.messages.request_warning import as_plain

MAX_PROMPT_BYTES = 2 * 2**20
"""The prompt is kept, and written into images."""


def add_prompt_routes(routes: APIRouter, submitter: PromptSubmitter, executor: Executor) -> None:
    @routes.post(
        "/prompt",
        openapi_extra=PROMPT,
        response_model=Accepted,
        responses=refusals(400, 413, 429, 503),
    )
    async def send(request: Request) -> Response:
        """Queue a graph. A 400 error names the node and input at fault."""
        owner = owner_of(request)
        try:
            body = await read_bytes(request)
            if len(body) > MAX_PROMPT_BYTES:
                raise HTTPException(413, f"a prompt must be at most {MAX_PROMPT_BYTES} bytes")
            prompt, node_errors = await submitter.submit(await object_of(request, body), owner)
        except InvalidPrompt as error:
            return error.response()
        executor.start(prompt)
        said = {"prompt_id": prompt.id, "number": prompt.number, "node_errors": node_errors}
        response = json_response({**said, "warnings": as_plain(prompt.warnings)})
        response.background = BackgroundTask(prompt.answered.set)
        return response

    @routes.get("/prompt", responses=refusals())
    async def remaining(request: Request) -> dict[str, Any]:
        """Return the number of the client's prompts in the queue."""
        return executor.status(owner_of(request))


def add_queue_routes(routes: APIRouter, prompts: Prompts, cache: ResultCache) -> None:
    @routes.get("/queue", responses=refusals())
    async def queue(request: Request) -> Response:
        """List the client's running and queued prompts."""
        found = prompts.queue(owner_of(request))
        said = {
            "queue_running": [prompt.to_json() for prompt in found if prompt.runs],
            "queue_pending": [prompt.to_json() for prompt in found if not prompt.runs],
        }
        return json_response(said)

    @routes.post(
        "/queue",
        openapi_extra=QUEUE,
        response_class=Response,
        responses=refusals(400, 413, 429),
    )
    async def edit_queue(request: Request) -> Response:
        """Remove queued prompts: the given ones, or all (`clear`)."""
        try:
            cleared, named = _named(await object_of(request, await read_bytes(request)))
        except InvalidPrompt as error:
            return error.response()
        for prompt in prompts.queue(owner_of(request)):
            if not prompt.runs and (cleared or prompt.id in named):
                prompt.dropped = True
                prompt.cancel()
        return Response()

    @routes.post(
        "/interrupt",
        openapi_extra=INTERRUPT,
        response_class=Response,
        responses=refusals(400, 413, 429),
    )
    async def interrupt(request: Request) -> Response:
        """Interrupt the longest-running prompt, or the given one if it is running."""
        body = await read_bytes(request)
        try:
            wanted = _wanted(await object_of(request, body)) if body.strip() else None
        except InvalidPrompt as error:
            return error.response()
        running = [prompt for prompt in prompts.queue(owner_of(request)) if prompt.runs]
        for prompt in running:
            if wanted in (None, prompt.id):
                prompt.cancel()
                break
        return Response()

    @routes.post(
        "/free", openapi_extra=FREE, response_class=Response, responses=refusals(400, 413, 429)
    )
    async def free(request: Request) -> Response:
        """Forget the client's cached results (`free_memory`). The model stays loaded."""
        body = await read_bytes(request)
        try:
            given = await object_of(request, body) if body.strip() else {}
        except InvalidPrompt as error:
            return error.response()
        if given.get("free_memory"):
            cache.forget(owner_of(request))
        return Response()


def add_history_routes(routes: APIRouter, prompts: Prompts) -> None:
    @routes.get("/history", openapi_extra=PAGE, responses=refusals(400))
    async def history(request: Request) -> Response:
        """List ended prompts, oldest first: the last `max_items`, or those from `offset` on."""
        try:
            most = whole_number(request.query_params, "max_items")
            offset = whole_number(request.query_params, "offset")
        except InvalidQuery as error:
            return json_response({"error": str(error)}, 400)
        found = list(prompts.history(owner_of(request)).items())
        most = None if most is None else max(0, most)
        if offset is None or offset < 0:
            offset = 0 if most is None else max(0, len(found) - most)
        return json_response(dict(found[offset : None if most is None else offset + most]))

    @routes.get("/history/{prompt_id}", responses=refusals())
    async def history_of(prompt_id: str, request: Request) -> Response:
        """Return one prompt if it has ended, otherwise an empty object."""
        entry = prompts.history(owner_of(request)).get(prompt_id)
        return json_response({} if entry is None else {prompt_id: entry})

    @routes.post(
        "/history",
        openapi_extra=QUEUE,
        response_class=Response,
        responses=refusals(400, 413, 429),
    )
    async def edit_history(request: Request) -> Response:
        """Remove ended prompts: the given ones, or all (`clear`)."""
        owner = owner_of(request)
        try:
            cleared, named = _named(await object_of(request, await read_bytes(request)))
        except InvalidPrompt as error:
            return error.response()
        for prompt_id in prompts.history(owner):
            if cleared or prompt_id in named:
                prompts.forget(owner, prompt_id)
        return Response()


def _wanted(given: dict[str, Any]) -> str | None:
    """Requested prompt id; None means any. Raises InvalidPrompt."""
    wanted = given.get("prompt_id")
    if not isinstance(wanted, str | None):
        raise InvalidPrompt("invalid_prompt_id", "prompt_id must be a string")
    return wanted


def _named(given: dict[str, Any]) -> tuple[bool, Collection[str]]:
    """Return `clear` and the ids in `delete`. Raises InvalidPrompt."""
    cleared, named = given.get("clear", False), given.get("delete", [])
    if not isinstance(cleared, bool):
        raise InvalidPrompt("invalid_clear", "clear must be true or false")
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise InvalidPrompt("invalid_delete", "delete must be a list of ids")
    return cleared, named
