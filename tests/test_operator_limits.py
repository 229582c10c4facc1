"""Bounds that the operator sets, on what is asked and on what is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI, Request
from http_serving import IMAGES, MODEL, app_with, ask

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.model_info import Limits
from multimodal_gen.runtime.entrypoints.http.middleware import BodyLimit
from multimodal_gen.runtime.serving.operator_limits import bounded, within_time


@pytest.mark.parametrize(
    ("limit", "asked", "param"),
    [
        ({"max_pixels": 96 * 96}, {"size": "112x96"}, "size"),
        ({"max_steps": 5}, {"size": "96x96", "num_inference_steps": 6}, "num_inference_steps"),
    ],
)
def test_more_than_the_operator_allows_is_refused(
    limit: dict[str, int], asked: dict[str, Any], param: str
) -> None:
    app = app_with(ends=QueueFull("full"), **limit)
    error = ask(app, "POST", IMAGES, json={"prompt": "a", **asked}).json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_value")


def test_the_operator_can_not_allow_more_than_the_model() -> None:
    model = msgspec.structs.replace(MODEL, limits=Limits(max_frames=9, max_steps=10))
    limits = bounded(model, ServerArgs(max_frames=99, max_steps=5)).limits
    assert (limits.max_frames, limits.max_steps) == (9, 5)


@pytest.mark.parametrize(
    ("most", "asked", "given"), [(None, None, None), (9, None, 9), (9, 5, 5), (9, 20, 9)]
)
def test_no_request_has_more_time_than_the_operator_gives(
    most: float | None, asked: float | None, given: float | None
) -> None:
    params = SamplingParams(prompt="a", deadline_s=asked)
    params = within_time(params, ServerArgs(max_request_s=most))
    assert params.deadline_s == given


def test_bodies_share_the_room_there_is_and_give_it_back() -> None:
    app = FastAPI()
    release = asyncio.Event()

    @app.post("/")
    async def hold(request: Request) -> int:
        size = len(await request.body())
        await release.wait()
        return size

    limited = BodyLimit(app, limit=100)

    async def statuses() -> tuple[list[int], int]:
        bodies = [asyncio.create_task(posted(limited)) for _ in range(10)]
        await asyncio.sleep(0.1)
        release.set()
        return sorted(await asyncio.gather(*bodies)), await posted(limited)

    assert asyncio.run(statuses()) == ([200] * 8 + [429] * 2, 200)


async def posted(app: Any) -> int:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.post("/", content=b"x" * 100)).status_code
