"""The calls that entry points make: one prompt to its result, and many prompts side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from multimodal_gen.client.request_handle import Output, RequestHandle, Update
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.entrypoints.python.pictures import open_pictures
from multimodal_gen.errors import EngineNotReady, MultimodalGenError, QueueFull
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.postprocess.images import to_pil

MAX_IN_FLIGHT = 64
"""Outputs of one list that are with the engine at a time: enough to fill every batch."""
RETRY_S = 1.0

R = TypeVar("R")


async def generate_one(client: SchedulerClient, params: SamplingParams) -> GenerationResult:
    """Submit, wait for every output; cancel them when the wait is given up."""
    requests, handles = _submit(client, params, previews=False)
    try:
        outputs = await asyncio.gather(*(handle.aresult() for handle in handles))
    finally:
        _cancel(handles)
    return _result(client, requests, outputs)


async def stream_one(
    client: SchedulerClient, params: SamplingParams, *, previews: bool
) -> AsyncIterator[Progress | GenerationResult]:
    """As `generate_one`, with the newest progress on the way; leaving the loop cancels."""
    requests, handles = _submit(client, params, previews=previews)
    latest: dict[int, Update] = {}
    outputs: dict[int, Output] = {}
    changed = asyncio.Event()

    async def follow(index: int) -> None:
        async for event in handles[index]:
            if isinstance(event, Output):
                outputs[index] = event
            else:
                latest[index] = event
            changed.set()

    tasks = [asyncio.create_task(follow(index)) for index in range(len(handles))]
    for task in tasks:
        task.add_done_callback(lambda _: changed.set())
    try:
        while len(outputs) < len(tasks):
            await changed.wait()
            changed.clear()
            for task in tasks:
                if task.done():
                    task.result()
            if latest and len(outputs) < len(tasks):
                yield _progress(requests, latest)
        yield _result(client, requests, [outputs[index] for index in range(len(tasks))])
    finally:
        _cancel(handles)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_all(
    items: Sequence[SamplingParams], run: Callable[[int], Awaitable[R]]
) -> list[R | MultimodalGenError]:
    """`run(index)` for every item, so many at a time that the queue has room for others.

    An error of one is its entry in the list. What finds the queue full is submitted again later.
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


def _submit(
    client: SchedulerClient, params: SamplingParams, *, previews: bool
) -> tuple[list[Req], list[RequestHandle]]:
    if client.model is None:
        raise client.died or EngineNotReady("the model is still loading")
    params, pixels = open_pictures(params)
    headers = {name: header_of(picture) for name, picture in pixels.items()}
    requests = requests_of(params, client.model, headers, previews=previews)
    handles: list[RequestHandle] = []
    try:
        handles.extend(client.submit(request, [*pixels.values()]) for request in requests)
    except MultimodalGenError:
        _cancel(handles)
        raise
    return requests, handles


def _cancel(handles: Sequence[RequestHandle]) -> None:
    for handle in handles:
        handle.cancel()  # without effect on what has ended


def _progress(requests: Sequence[Req], latest: dict[int, Update]) -> Progress:
    steps = requests[0].params.num_inference_steps or 1
    totals = [latest[i].total if i in latest else steps for i in range(len(requests))]
    etas = [update.eta_s for update in latest.values() if update.eta_s is not None]
    preview = next((u.preview for u in latest.values() if u.preview is not None), None)
    return Progress(
        step=sum(update.step for update in latest.values()),
        total=sum(totals),
        eta=max(etas, default=None),
        preview=to_pil(preview) if preview is not None else None,
    )


def _result(
    client: SchedulerClient, requests: Sequence[Req], outputs: Sequence[Output]
) -> GenerationResult:
    assert client.model is not None
    params = replace(requests[0].params, num_outputs_per_prompt=len(requests))
    return GenerationResult(tuple(outputs), params, client.model.name)
