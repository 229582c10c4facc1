"""What every protocol's bodies have in common: one parser, one set of limits, and shared memory."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from http_serving import IMAGES, MODEL, app_with, ask
from openai_client import encoded
from PIL import Image

from multimodal_gen.entrypoints.http.bodies import json_body, reading, room
from multimodal_gen.entrypoints.http.bodies.form_body import FORMS, FormFile, parse_form
from multimodal_gen.entrypoints.http.bodies.json_body import parse_json
from multimodal_gen.entrypoints.http.bodies.room import Hold, Room, body_room, picture_room
from multimodal_gen.entrypoints.http.transport.middleware import Drained
from multimodal_gen.entrypoints.python.decoding import decode_picture, picture_memory
from multimodal_gen.errors import InvalidRequest, QueueFull

HALF = "\ud800"
"""Half a surrogate pair: valid in JSON, and in no encoding."""
HUGE = 10**400
TXT2IMG, OPTIONS = "/sdapi/v1/txt2img", "/sdapi/v1/options"
HEART = {"prompt": "a red heart"}
KINDS = ["application/json", "application/JSON", "text/plain", "application/octet-stream", ""]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Takes every good request as far as a full queue: 429."""
    model = msgspec.structs.replace(
        MODEL, tasks=("text-to-image", "image-to-image"), parameters=("lora", "strength")
    )
    return app_with(model=model, ends=QueueFull("full"))


def posted(app: FastAPI, path: str, body: Any, kind: str = "application/json") -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, "POST", path, content=content, headers={"content-type": kind} if kind else {})


def graph(**sampler: Any) -> dict[str, Any]:
    return {"prompt": {"3": {"class_type": "KSampler", "inputs": sampler}}}


def in_form(name: str, value: str, charset: str = "") -> dict[str, Any]:
    part = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b{charset}"
    return {"content": part.encode(), "headers": {"content-type": kind}}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (IMAGES, {"prompt": HALF}, "prompt"),
        (IMAGES, {**HEART, "lora": [{"name": HALF}]}, "lora.0.name"),
        (IMAGES, {**HEART, "unknown": {"deep": [HALF]}}, "unknown.deep.0"),
        (IMAGES, {**HEART, "user": "a\0b"}, "user"),
        (IMAGES, {**HEART, "guidance_scale": HUGE}, "guidance_scale"),
        (IMAGES, {**HEART, "deadline_s": HUGE}, "deadline_s"),
        (IMAGES, {**HEART, "width": HUGE}, "width"),
        (IMAGES, {**HEART, "lora": [{"name": "a", "scale": HUGE}]}, "lora.0.scale"),
        (IMAGES, {**HEART, "unknown": float("inf")}, "unknown"),
        ("/v1/videos", {"prompt": "a", "seconds": float("nan")}, "seconds"),
        ("/hf", {"inputs": HALF}, "inputs"),
        ("/hf", {"inputs": "a", "parameters": {"negative_prompt": HALF}}, "negative_prompt"),
        ("/hf", {"inputs": "a", "parameters": {"guidance_scale": HUGE}}, "guidance_scale"),
        ("/hf", {"inputs": "a", "parameters": {"lora": [{"name": "a", "scale": HUGE}]}}, "scale"),
        (TXT2IMG, {"prompt": "a", "sampler_name": HALF}, "sampler_name"),
        (TXT2IMG, {"prompt": "a", "cfg_scale": HUGE}, "cfg_scale"),
        (TXT2IMG, {"prompt": "a", "override_settings": {"a": [HALF]}}, "override_settings.a.0"),
        (TXT2IMG, {"prompt": "<lora:a:1e999>"}, "prompt="),
        (TXT2IMG, {"prompt": f"<lora:a:{HUGE}>"}, "lora="),
        (TXT2IMG, {"infotext": f"a\nSteps: {HUGE}, Seed: 1, Size: 96x96"}, "steps"),
        (TXT2IMG, {"infotext": "a\nSteps: 2, CFG scale: 1e999, Size: 96x96"}, "cfg_scale"),
        (OPTIONS, {"sd_model_checkpoint": HALF}, "sd_model_checkpoint"),
        ("/sdapi/v1/png-info", {"image": HALF}, "image"),
        ("/prompt", graph(seed=HUGE), "prompt.3.inputs.seed"),
        ("/prompt", graph(sampler_name=HALF), "prompt.3.inputs.sampler_name"),
        ("/prompt", {"prompt": {}, "client_id": HALF}, "client_id"),
        ("/prompt", {"prompt": {}, "number": HUGE}, "number"),
        ("/queue", {"delete": [HALF]}, "delete.0"),
        ("/history", {"delete": [HALF]}, "delete.0"),
        ("/interrupt", {"prompt_id": HALF}, "prompt_id"),
        ("/v1/jobs/zip", {"outputs": [{"job": HALF}]}, "outputs.0.job"),
        ("/v1/jobs/zip", {"outputs": [{"job": "a", "index": HUGE}]}, "outputs.0.index"),
        ("/count_tokens", {"prompt": HALF}, "prompt"),
    ],
)
def test_what_can_not_be_encoded_or_counted_is_refused_with_the_name_of_its_field(
    app: FastAPI, path: str, body: dict[str, Any], field: str
) -> None:
    response = posted(app, path, body)
    assert response.status_code == 400
    assert field in response.text


def test_a_name_that_can_not_be_encoded_is_escaped(app: FastAPI) -> None:
    response = posted(app, IMAGES, {**HEART, HALF: 1})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "\\ud800")


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (IMAGES, {"error"}),
        ("/hf", {"error", "error_type", "field"}),
        (TXT2IMG, {"error", "detail", "body", "errors"}),
        ("/prompt", {"error", "node_errors"}),
    ],
)
def test_the_refusal_has_the_shape_of_the_protocol(app: FastAPI, path: str, keys: set[str]) -> None:
    for bad in ({"prompt": HALF}, {"prompt": HUGE}, {"prompt": {"a": float("nan")}}):
        response = posted(app, path, bad)
        assert (response.status_code, response.json().keys()) == (400, keys)


def test_text_in_a_form_is_checked_as_in_json(app: FastAPI) -> None:
    response = ask(app, "POST", IMAGES, **in_form("prompt", "a\0b"))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize("charset", ["utf-7", "punycode", "utf-16", "unicode_escape", "no-such"])
def test_a_form_in_another_charset_is_refused(app: FastAPI, charset: str) -> None:
    # Some of these decode to half surrogate pairs, or in quadratic time.
    response = ask(app, "POST", IMAGES, **in_form("prompt", "+2AA-", f"; charset={charset}"))
    assert response.status_code == 400
    assert "UTF-8" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", [("a", "1"), ("b", FormFile("f", b"\r\n--b"))]),
        (b"preamble\r\n", [("a", "1"), ("b", FormFile("f", b"\r\n--b"))]),
    ],
)
def test_a_form_is_split_at_its_boundary(body: bytes, fields: list[Any]) -> None:
    body += (
        b'--bound \r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name="a"\r\n\r\n1'
        b'\r\n--bound\r\nContent-Disposition: form-data; name="b"; filename="f"\r\n\r\n\r\n--b'
        b"\r\n--bound--\r\nepilogue"
    )
    assert parse_form("multipart/form-data; boundary=bound", body) == fields


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b--"[:-1],
        b"--b\r\n\r\n--b--",
        b"--b\r\nx: y\r\n\r\n1\r\n--b--",
        b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1',
        b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b\r\n',
        b"--b\r\n" + b"x: y\r\n" * 5000 + b"\r\n\r\n1\r\n--b--",
    ],
)
def test_a_form_without_its_parts_is_refused(body: bytes) -> None:
    with pytest.raises(HTTPException) as caught:
        parse_form("multipart/form-data; boundary=b", body)
    assert caught.value.status_code == 400


def test_forms_have_a_limited_number_of_fields_and_escapes() -> None:
    part = b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n'
    with pytest.raises(HTTPException, match="200"):
        parse_form("multipart/form-data; boundary=b", part * 201 + b"--b--")
    assert len(parse_form("multipart/form-data; boundary=b", part * 200 + b"--b--")) == 200
    with pytest.raises(HTTPException, match="200"):
        parse_form(FORMS[1], b"a=1&" * 201)
    with pytest.raises(HTTPException, match="escapes"):
        parse_form(FORMS[1], b"a=" + b"%41" * 500_001)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/files/{}/{}"),
        ("GET", "/v1/models/{}"),
        ("GET", "/v1/videos/{}"),
        ("GET", "/v1/videos/{}/content?variant={}"),
        ("GET", "/v1/videos?after={}"),
        ("DELETE", "/v1/jobs/{}"),
        ("GET", "/v1/jobs?after={}&limit={}"),
        ("GET", "/view?filename={}&subfolder={}&type={}"),
        ("GET", "/history/{}"),
        ("GET", "/history?max_items={}"),
        ("GET", "/object_info/{}"),
        ("GET", "/models/{}"),
        ("GET", "/sdapi/v1/progress?skip_current_image={}"),
        ("GET", "/{}"),
    ],
)
@pytest.mark.parametrize("text", ["%ED%A0%80", "%00", "%FF", "1" + "0" * 400, "%F0%9F%98%80"])
def test_no_text_in_a_url_makes_the_server_fail(
    app: FastAPI, method: str, path: str, text: str
) -> None:
    assert ask(app, method, path.replace("{}", text)).status_code < 500


@pytest.mark.parametrize("path", ["/hf", "/prompt", "/queue", "/history", "/interrupt"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_values_is_limited_whatever_the_content_type(
    app: FastAPI, path: str, kind: str
) -> None:
    body = b'{"inputs": "a", "prompt": {}, "x": [' + b"1," * json_body.MAX_VALUES + b"1]}"
    assert posted(app, path, body, kind).status_code == 413


@pytest.mark.parametrize("path", [IMAGES, TXT2IMG, OPTIONS])
def test_the_number_of_values_is_limited_in_every_spelling_of_json(app: FastAPI, path: str) -> None:
    body = b'{"prompt": "a", "x": [' + b"1," * json_body.MAX_VALUES + b"1]}"
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/x+json"):
        assert posted(app, path, body, kind).status_code == 413


def test_every_route_that_takes_json_limits_what_it_parses(app: FastAPI) -> None:
    paths = ask(app, "GET", "/openapi.json").json()["paths"]
    taking = [
        (method, path)
        for path, methods in paths.items()
        for method, route in methods.items()
        if "application/json" in route.get("requestBody", {}).get("content", {})
    ]
    assert {"/v1/jobs/zip", "/count_tokens", TXT2IMG, IMAGES} <= {path for _, path in taking}
    headers = {"content-type": "application/json"}
    alone = json.dumps({"x": HALF}).encode()
    many = b'{"x": [' + b"1," * json_body.MAX_VALUES + b"1]}"
    for method, path in taking:
        url = re.sub(r"{\w+}", "0", path)
        half = ask(app, method, url, content=alone, headers=headers)
        assert (half.status_code, "valid Unicode" in half.text) == (400, True), path
        assert ask(app, method, url, content=many, headers=headers).status_code == 413, path


@pytest.mark.parametrize("path", [IMAGES, "/hf", TXT2IMG, "/prompt"])
def test_the_depth_of_values_is_limited(app: FastAPI, path: str) -> None:
    for depth in (json_body.MAX_DEPTH + 5, 100_000):
        body = b'{"inputs": "a", "prompt": "a", "x": ' + b"[" * depth + b"]" * depth + b"}"
        assert posted(app, path, body).status_code == 400


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a": [1, 2.5, "\\ud83d\\ude00", null, true]} ', {"a": [1, 2.5, "😀", None, True]}),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"[18446744073709551615, -9223372036854775808]", [2**64 - 1, -(2**63)]),
    ],
)
def test_good_json_is_parsed(text: bytes, value: object) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe[\x001\x00]\x00", b'["\xed\xa0\x80"]'])
def test_bytes_that_are_not_json_are_refused(text: bytes) -> None:
    with pytest.raises(RequestValidationError):
        parse_json(text)


def test_long_text_that_is_not_ascii_is_refused() -> None:
    # One such character makes every other take four bytes.
    with pytest.raises(InvalidRequest, match="characters"):
        parse_json(json.dumps({"a": "😀" + "a" * json_body.MAX_TEXT}).encode())
    assert parse_json(json.dumps({"a": "a" * 2 * json_body.MAX_TEXT}).encode())


def test_large_bodies_are_parsed_by_threads_few_at_a_time(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, seen = 0, 0, set()
    lock, enough = threading.Lock(), threading.Event()

    def parse(body: bytes) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            seen.add(threading.current_thread())
            if running == reading.MAX_PARSERS:
                enough.set()
        assert enough.wait(30)
        with lock:
            running -= 1
        return {"prompt": "a"}

    monkeypatch.setattr(reading, "parse_json", parse)
    statuses = asyncio.run(all_posted(app, [b" " * (room.SMALL + 1)] * 6, IMAGES))
    assert statuses == [429] * 6  # the queue's
    assert most == reading.MAX_PARSERS
    assert threading.main_thread() not in seen


async def all_posted(app: FastAPI, bodies: list[Any], path: str) -> list[int]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"content-type": "application/json"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        sent = [client.post(path, content=body, headers=headers) for body in bodies]
        return [response.status_code for response in await asyncio.gather(*sent)]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_share_the_room_there_is_and_give_it_back(chunked: bool) -> None:
    app = app_with(ends=QueueFull("full"), max_body_bytes=100)
    release, full = asyncio.Event(), asyncio.Event()
    held: list[int] = []

    @app.post("/hold")
    async def hold(request: Request) -> None:
        held.append(len(await request.body()))
        if len(held) == 8:
            full.set()
        await release.wait()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 25

    def body() -> Any:
        return chunks() if chunked else b"x" * 100

    async def statuses() -> tuple[list[int], list[int], list[int]]:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            first = group.create_task(all_posted(app, [body() for _ in range(8)], "/hold"))
            await full.wait()
            refused = await all_posted(app, [body(), body()], "/hold")
            release.set()
        return first.result(), refused, await all_posted(app, [body()], "/hold")

    assert asyncio.run(statuses()) == ([200] * 8, [429] * 2, [200])
    assert held == [100] * 9


def test_large_bodies_are_read_in_turns() -> None:
    """Of 20 that have data all the time, few pieces are read in one round of the event loop."""

    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    async def rounds() -> int:
        drained = Drained(read_all, most=0)

        async def read() -> None:
            left = 40

            async def receive() -> dict[str, Any]:
                nonlocal left
                left -= 1
                await asyncio.sleep(0)
                return {"type": "http.request", "body": b"x" * 2**16, "more_body": left > 0}

            async def send(_: Any) -> None:
                pass

            headers = [(b"transfer-encoding", b"chunked")]
            await drained({"type": "http", "headers": headers}, receive, send)

        readers = [asyncio.ensure_future(read()) for _ in range(20)]
        count = 0
        while not all(reader.done() for reader in readers):
            await asyncio.sleep(0)
            count += 1
        return count

    # At first they are small; then two pieces of all are read in each round.
    assert asyncio.run(rounds()) > 20 * 30 // 2


def test_one_owner_of_several_has_half_of_the_room() -> None:
    shared = body_room(1000, several_owners=True)
    shared.take("a", 4000, large=False)
    with pytest.raises(QueueFull, match="too many large request bodies"):
        shared.take("a", 1, large=False)
    shared.take("b", 4000, large=False)
    with pytest.raises(QueueFull):
        shared.take("c", 1, large=False)
    shared.give("a", 4000)
    shared.take("c", 4000, large=False)
    assert shared.held == 8000


def test_large_requests_leave_room_for_small_ones() -> None:
    shared = body_room(room.SMALL, several_owners=False)
    large = [Hold(shared, "a") for _ in range(7)]
    for hold in large:
        hold.take(room.SMALL // 2)
        hold.take(room.SMALL // 2)
    with pytest.raises(QueueFull):
        Hold(shared, "b").take(room.SMALL + 1)
    Hold(shared, "b").take(room.SMALL)
    assert shared.held == 8 * room.SMALL


def test_a_request_that_has_ended_takes_no_more_room() -> None:
    shared = body_room(1000, several_owners=False)
    hold = Hold(shared, "a")
    hold.take(60)
    hold.close()
    hold.take(60)
    assert shared.held == 0


@pytest.fixture
def pictures() -> Iterator[Room]:
    """Room for the images that the test decodes."""
    shared = picture_room(10_000, several_owners=True)
    token = picture_memory.set(lambda: Hold(shared, "a"))
    yield shared
    picture_memory.reset(token)


def test_a_decoded_image_takes_room_until_it_is_freed(pictures: Room) -> None:
    pixels = decode_picture(encoded(Image.new("RGB", (100, 100))), "image")
    assert pictures.held == pixels.nbytes == 30_000
    del pixels
    gc.collect()
    assert pictures.held == 0


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_image_whose_pixels_have_no_room_is_not_decoded(pictures: Room, format: str) -> None:
    with pytest.raises(QueueFull):
        decode_picture(encoded(Image.new("RGB", (101, 100)), format), "image")
    assert pictures.held == 0


def test_a_damaged_image_gives_its_room_back(pictures: Room) -> None:
    with pytest.raises(InvalidRequest):
        decode_picture(encoded(Image.effect_noise((90, 90), 50))[:500], "image")
    assert pictures.held == 0


def test_a_refused_request_gives_the_room_of_its_image_back() -> None:
    tasks = ("image-to-image",)
    model = msgspec.structs.replace(MODEL, tasks=tasks, parameters=("strength",))
    app = app_with(model=model, ends=QueueFull("full"), max_input_pixels=96 * 96)
    file = base64.b64encode(encoded(Image.new("RGB", (96, 96)))).decode()
    body = {"prompt": "a", "image": file, "strength": 2}
    responses = [posted(app, "/v1/images/edits", body) for _ in range(20)]
    assert {response.json()["error"]["param"] for response in responses} == {"strength"}
