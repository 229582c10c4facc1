"""Mistakes that people make over HTTP: each is answered, in its protocol's own form, by one line
that leads to the right call."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fake_engine import EagerEngine
from fastapi import FastAPI
from http_serving import IMAGES, VIDEO_MODEL, app_over, ask
from playground_server import PICTURES

from multimodal_gen.entrypoints.http.ops.docs.examples import EXAMPLES

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
A1111, JOBS = "/sdapi/v1", "/v1/jobs"
GRAPH: Any = (EXAMPLES["POST /prompt"].body or {})["prompt"]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return app_over(EagerEngine(PICTURES))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def with_key() -> FastAPI:
    return app_over(EagerEngine(PICTURES), api_key="the-key")  # type: ignore[arg-type]


def line_of(reply: httpx2.Response) -> str:
    """What a client shows of an error, in the form of the protocol that was asked."""
    path, body = reply.request.url.path, reply.json()
    if path.startswith("/sdapi/"):
        assert body.keys() == {"error", "detail", "body", "errors"}
        return str(body["detail"])
    if path.startswith("/hf"):
        assert body.keys() == {"error", "error_type", "field"}
        return str(body["error"])
    error = body["error"]
    if path in ("/prompt", "/view") or path.startswith("/api/"):
        assert error.keys() == {"type", "message", "details", "extra_info"}
        return f"{error['message']} {error['details']}"
    assert error.keys() == {"message", "type", "param", "code"}
    return str(error["message"])


def leads_to(reply: httpx2.Response, status: int, *words: str) -> None:
    assert reply.status_code == status, reply.text
    line = line_of(reply)
    assert "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (IMAGES, {"promt": "a"}, ("prompt is missing", "'promt'")),
        (IMAGES, {"Prompt": "a"}, ("prompt is missing", "'Prompt'")),
        (IMAGES, {"text": "a"}, ("prompt is missing", "'text'")),
        ("/v1/images/edits", {"prompt": "a"}, ("image is missing",)),
        (IMAGES, {"prompt": "a", "n": 50}, ("n=50", "at most 10")),
        (IMAGES, {"prompt": "a", "seed": "abc"}, ("seed='abc'", "a whole number")),
        (IMAGES, {"prompt": "a", "size": "512*512"}, ("as in 1024x1024",)),
        (IMAGES, {"prompt": "a", "size": "512x513"}, ("multiple of 16", "512 or 528")),
        (IMAGES, {"prompt": "a", "response_format": "b64"}, ("must be b64_json, url or file",)),
        (IMAGES, {"prompt": "a", "output_format": "pgn"}, ("png, jpeg or webp", "mean png?")),
        (IMAGES, {"prompt": "a", "stream": "yes"}, ("stream='yes'", "true or false")),
        (IMAGES, {"prompt": "a", "scheduler": "eular"}, ("flow_euler",)),
        ("/v1/images/edits", {"prompt": "a", "image": "boat.png"}, ("a file, a data URL",)),
        ("/v1/images/edits", {"prompt": "a", "file": "x"}, ("image is missing", "'file'")),
        ("/v1/videos", {"prompt": "a"}, ("makes images", "/v1/images/generations")),
        ("/hf", {"prompt": "a"}, ("inputs is missing", "'prompt'")),
        ("/hf", {"inputs": "a", "parameters": []}, ("parameters", "an object")),
        (
            "/hf",
            {"inputs": "a", "parameters": {"num_inference_steps": "x"}},
            ("num_inference_steps='x'", "a whole number"),
        ),
        (f"{A1111}/img2img", {"prompt": "a"}, ("init_images", "one image")),
        (f"{A1111}/img2img", {"init_images": "x"}, ("init_images", "a list")),
        (f"{A1111}/txt2img", {"steps": "many"}, ("steps='many'", "a whole number")),
        (f"{A1111}/txt2img", {"batch_size": 100}, ("batch_size", "1 to 16")),
        (f"{A1111}/options", {"sd_model_checkpoint": "x"}, ("must be 'owner/name'",)),
        ("/prompt", GRAPH, ("No prompt provided", '{"prompt": graph}')),
        ("/prompt", {"nodes": [], "links": []}, ("export it there as API format",)),
        ("/prompt", {"prompt": {"nodes": [], "links": []}}, ("export it there as API format",)),
        (
            "/prompt",
            {"prompt": {"1": {"class_type": "KSamplr", "inputs": {}}}},
            ("did you mean KSampler?",),
        ),
        ("/prompt", {"prompt": {"4": GRAPH["4"]}}, ("no outputs", "SaveImage")),
    ],
)
def test_a_mistake_in_a_body_is_named_with_what_is_allowed(
    app: FastAPI, path: str, body: Any, words: tuple[str, ...]
) -> None:
    leads_to(ask(app, "POST", path, json=body), 400, *words)


def test_a_misspelt_choice_of_a_node_is_named_with_the_nearest(app: FastAPI) -> None:
    graph = json.loads(json.dumps(GRAPH).replace('"euler"', '"eular"'))
    leads_to(ask(app, "POST", "/prompt", json={"prompt": graph}), 400, "did you mean 'euler'?")


def test_images_of_a_model_of_videos_are_asked_for_elsewhere() -> None:
    app = app_over(EagerEngine(VIDEO_MODEL))  # type: ignore[arg-type]
    leads_to(ask(app, "POST", IMAGES, json={"prompt": "a"}), 400, "use /v1/videos")


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        (b'{"prompt":"a",}', JSON, ("not valid JSON", "at character 15")),
        (b"{'prompt':'a'}", JSON, ("not valid JSON", "double quotes", "at character 2")),
        (b'{"prompt":"a"}', FORM, ("content-type: application/json",)),
        (b"prompt=a", {"content-type": "text/plain"}, ("content-type: application/json",)),
        (b"", {}, ("must be a JSON object",)),
        (b'["a"]', JSON, ("must be a JSON object",)),
    ],
)
def test_a_body_that_is_no_json_is_told_how_to_be(
    app: FastAPI, content: bytes, headers: dict[str, str], words: tuple[str, ...]
) -> None:
    leads_to(ask(app, "POST", IMAGES, content=content, headers=headers), 400, *words)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/v1/image/generations", ("did you mean POST /v1/images/generations?",)),
        ("POST", "/images/generations", ("did you mean POST /v1/images/generations?",)),
        ("POST", "/v1/v1/images/generations", ("did you mean POST /v1/images/generations?",)),
        ("POST", "/v1/images/generations/", ("did you mean POST /v1/images/generations?",)),
        ("GET", "/v1/job", ("did you mean GET /v1/jobs?",)),
        ("POST", "/v1/chat/completions", ("images and videos", "/v1/images/generations")),
        ("POST", "/sdapi/v1/text2img", ("did you mean POST /sdapi/v1/txt2img?",)),
        ("POST", "/api/promt", ("did you mean POST /prompt?",)),
        ("GET", "/hf/models", ("no route",)),
        ("GET", "/nowhere/at/all", ("no route '/nowhere/at/all'", "/docs")),
    ],
)
def test_a_path_that_there_is_not_leads_to_one_that_there_is(
    app: FastAPI, method: str, path: str, words: tuple[str, ...]
) -> None:
    leads_to(ask(app, method, path), 404, *words)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", IMAGES, ("takes POST, not GET",)),
        ("GET", f"{A1111}/txt2img", ("takes POST, not GET",)),
        ("GET", "/hf", ("takes POST, not GET",)),
        ("POST", JOBS, ("takes GET, not POST", "run_in_background")),
        ("PUT", "/v1/jobs/a", ("not PUT",)),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    app: FastAPI, method: str, path: str, words: tuple[str, ...]
) -> None:
    reply = ask(app, method, path)
    leads_to(reply, 405, *words)
    assert reply.headers["allow"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=abc", ("limit='abc'", "a whole number")),
        ("limit=5000", ("limit=", "at most 100")),
        ("order=newest", ("asc or desc",)),
        ("kind=images", ("did you mean image?",)),
    ],
)
def test_a_mistake_in_a_query_is_named(app: FastAPI, query: str, words: tuple[str, ...]) -> None:
    leads_to(ask(app, "GET", f"{JOBS}?{query}"), 400, *words)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, ("API key required", "Authorization: Bearer <key>")),
        ({"x-api-key": "the-key"}, ("Authorization: Bearer <key>, not as x-api-key",)),
        ({"authorization": "the-key"}, ("the header must be Authorization: Bearer <key>",)),
        ({"authorization": "Bearer another"}, ("is not one of this server's",)),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_told_how_to_be_sent(
    with_key: FastAPI, headers: dict[str, str], words: tuple[str, ...]
) -> None:
    reply = ask(with_key, "GET", JOBS, headers=headers)
    leads_to(reply, 401, *words)
    assert "the-key" not in reply.text


# -- what is answered all the same, with a warning


def warned(reply: httpx2.Response) -> str:
    assert reply.status_code == 200, reply.text
    if reply.headers["content-type"] != "application/json":
        return reply.headers["x-hf-warning"]
    body = reply.json()
    told = body["warnings"] if "warnings" in body else json.loads(body["info"])["warnings"]
    return "\n".join(each["text"] for each in told)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (IMAGES, {"prompt": "a", "steps": 5}, "did you mean num_inference_steps?"),
        (IMAGES, {"prompt": "a", "negativ_prompt": "b"}, "did you mean negative_prompt?"),
        (IMAGES, {"prompt": "a", "cfg_scale": 5}, "did you mean guidance_scale?"),
        (IMAGES, {"prompt": "a", "image": "x"}, "/v1/images/edits"),
        (
            "/hf",
            {"inputs": "a", "parameters": {"num_steps": 5}},
            "did you mean num_inference_steps?",
        ),
        (f"{A1111}/txt2img", {"promt": "a"}, "did you mean prompt?"),
        (f"{A1111}/txt2img", {"prompt": "a", "sampler": "Euler"}, "did you mean sampler_name?"),
    ],
)
def test_a_field_that_is_ignored_is_named_with_the_one_that_is_meant(
    app: FastAPI, path: str, body: Any, words: str
) -> None:
    assert words in warned(ask(app, "POST", path, json=body))
