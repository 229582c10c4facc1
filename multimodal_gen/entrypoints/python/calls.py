"""Calls that entry points share: generate one prompt, or many concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from multimodal_gen.client.request_handle import Output, RequestHandle
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import EngineNotReady, MultimodalGenError, QueueFull
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels, headers_of
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.messages.validation import outputs_of, resolve, warnings_about
from multimodal_gen.postprocess.images import to_pil
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task

if TYPE_CHECKING:
    import numpy as np

MAX_IN_FLIGHT = 64
"""Maximum outputs of one list in the engine at a time: enough to fill every batch."""
RETRY_S = 1.0

R = TypeVar("R")
Warnings = tuple[RequestWarning, ...]


async def generate_one(
    client: SchedulerClient, params: SamplingParams, given: Pixels = NO_PIXELS
) -> GenerationResult:
    """Submit a prompt and wait for all outputs; cancel them if the wait is cancelled. `given` are
    inputs that `params` does not name by path."""
    params, pixels, told = _resolve(client, params, given)
    async with _submitted(client, params, pixels, told) as task:
        return _result(client, params, pixels, await task.wait())


async def stream_one(
    client: SchedulerClient,
    params: SamplingParams,
    given: Pixels = NO_PIXELS,
    *,
    previews: bool = False,
) -> AsyncGenerator[Progress | GenerationResult, None]:
    """Generate as `generate_one`, and yield the latest progress; leaving the loop cancels."""
    params, pixels, told = _resolve(client, params, given)
    stream = stream_resolved(client, params, pixels, told, previews=previews)
    async with aclosing(stream) as events:
        async for event in events:
            yield event


async def stream_resolved(
    client: SchedulerClient,
    params: SamplingParams,
    pixels: Pixels,
    told: Warnings = (),
    *,
    previews: bool = False,
) -> AsyncGenerator[Progress | GenerationResult, None]:
    """Generate as `stream_one`, from resolved parameters and decoded images."""
    shown: np.ndarray[Any, Any] | None = None
    async with (
        _submitted(client, params, pixels, told, previews=previews) as task,
        aclosing(task.changes()) as changes,
    ):
        await anext(changes)  # Skip the first: the engine has not reported anything yet.
        async for _ in changes:
            if not task.done:
                yield _progress(task, None if task.preview is shown else task.preview)
                shown = task.preview
        yield _result(client, params, pixels, await task.wait())


async def run_all(
    items: Sequence[SamplingParams], run: Callable[[int], Awaitable[R]]
) -> list[R | MultimodalGenError]:
    """Call `run(index)` for each item, limited so that the queue has room for other clients.

    Returns results, with errors in place of failed ones. Retries items that find the queue full.
    """
    outputs = max((item.num_outputs_per_prompt for item in items), default=1)
    gate = asyncio.Semaphore(max(1, MAX_IN_FLIGHT // max(1, outputs)))

    async def one(index: int) -> R | MultimodalGenError:
        async with gate:
            while True:
                try:
                    return await run(index)
                except QueueFull as full:
                    await asyncio.sleep(full.retry_after_s or RETRY_S)
                except MultimodalGenError as error:
                    return error

    return await asyncio.gather(*(one(index) for index in range(len(items))))


def _resolve(
    client: SchedulerClient, params: SamplingParams, given: Pixels
) -> tuple[SamplingParams, Pixels, Warnings]:
    if client.model is None:
        raise client.died or EngineNotReady("the model is still loading")
    params, opened = open_pictures(params)
    pixels = {**opened, **given}
    headers = headers_of(pixels)
    resolved = resolve(params, client.model, headers)
    return resolved, pixels, warnings_about(params, client.model, headers)


@asynccontextmanager
async def _submitted(
    client: SchedulerClient,
    params: SamplingParams,
    pixels: Pixels,
    told: Warnings,
    *,
    previews: bool = False,
) -> AsyncGenerator[Task, None]:
    """Submit the outputs of a prompt as a task; on exit, unfinished ones are cancelled."""
    requests = outputs_of(params, headers_of(pixels), told, previews=previews)
    handles: list[RequestHandle] = []
    reports: list[asyncio.Task[None]] = []

    def cancel(_: Task) -> None:
        for handle in handles:
            handle.cancel()  # no effect on ended requests

    model = "" if client.model is None else client.model.name
    task = Task(requests[0].id, Owner(), requests, cancel, model=model)
    try:
        for index, request in enumerate(requests):
            handles.append(client.submit(request, [*pixels.values()]))
            reports.append(asyncio.create_task(handles[-1].report(partial(task.receive, index))))
        yield task
    finally:
        task.cancel()
        for report in reports:
            report.cancel()
        await asyncio.gather(*reports, return_exceptions=True)


def _progress(task: Task, preview: np.ndarray[Any, Any] | None) -> Progress:
    now = task.progress
    return Progress(
        step=now.step,
        total=now.total,
        eta=now.eta_s,
        phase=now.phase,
        preview=None if preview is None else to_pil(preview),
    )


def _result(
    client: SchedulerClient, params: SamplingParams, pixels: Pixels, outputs: Sequence[Output]
) -> GenerationResult:
    assert client.model is not None
    return GenerationResult(tuple(outputs), params, client.model.name, tuple(pixels))
