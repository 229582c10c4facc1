"""Bounds that the operator sets, on what is asked and on what is sent."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import msgspec
import pytest
from http_serving import IMAGES, MODEL, address_of, app_with, ask, serving

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.model_info import Limits
from multimodal_gen.serving.operator_limits import bounded, within_time

JSON = {"content-type": "application/json"}


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


def test_what_a_request_leaves_out_is_within_the_operators_bounds() -> None:
    assert MODEL.defaults.num_inference_steps > 2
    app = app_with(ends=QueueFull("full"), max_steps=2, max_pixels=80 * 90)
    assert ask(app, "POST", IMAGES, json={"prompt": "a"}).status_code == 429
    wide = msgspec.structs.replace(MODEL.defaults, width=1280, height=704, num_frames=121)
    model = msgspec.structs.replace(
        MODEL, size_multiple=32, frame_multiple=4, defaults=wide, limits=Limits(max_frames=241)
    )
    fitted = bounded(model, ServerArgs(max_pixels=640 * 352, max_frames=12)).defaults
    assert (fitted.width, fitted.height, fitted.num_frames) == (640, 352, 9)
    assert bounded(model, ServerArgs()).defaults == wide


@pytest.mark.parametrize(
    ("most", "asked", "given"), [(None, None, None), (9, None, 9), (9, 5, 5), (9, 20, 9)]
)
def test_no_request_has_more_time_than_the_operator_gives(
    most: float | None, asked: float | None, given: float | None
) -> None:
    params = SamplingParams(prompt="a", deadline_s=asked)
    params = within_time(params, ServerArgs(max_request_s=most))
    assert params.deadline_s == given


def test_json_of_very_many_values_is_refused() -> None:
    app = app_with(ends=QueueFull("full"))
    content = b'{"prompt": "a", "x": [' + b"1," * 300_000 + b"1]}"
    response = ask(app, "POST", IMAGES, content=content, headers=JSON)
    assert response.status_code == 413


@pytest.mark.parametrize("key", ["one", "wrong"])
def test_an_early_answer_is_seen_by_who_still_sends(key: str) -> None:
    app = app_with(ends=QueueFull("full"), api_key="one", max_body_bytes=10_000_000)
    headers = {"authorization": f"Bearer {key}", "connection": "close", **JSON}
    with serving(app) as url:
        response = httpx2.post(url + IMAGES, content=b" " * 15_000_000, headers=headers)
    assert response.status_code == (413 if key == "one" else 401)


def test_who_asks_whether_to_send_is_answered_first() -> None:
    app = app_with(ends=QueueFull("full"), api_key="one")
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n"
    with serving(app) as url, socket.create_connection(address_of(url), timeout=10) as raw:
        raw.sendall(head)
        assert raw.recv(4096).startswith(b"HTTP/1.1 401")
