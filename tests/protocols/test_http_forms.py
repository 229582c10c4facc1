"""Forms become the same bodies as JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from http_serving import IMAGES, MODEL, app_with, ask
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_client import encoded
from PIL import Image

from multimodal_gen.entrypoints.http.openai.schema import EditsRequest, ImagesRequest
from multimodal_gen.entrypoints.http.transport.forms import fold
from multimodal_gen.errors import QueueFull

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
FILE = encoded(Image.new("RGB", (16, 16)))


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Takes every good request as far as a full queue: 429."""
    tasks = ("text-to-image", "image-to-image", "inpainting")
    model = msgspec.structs.replace(MODEL, tasks=tasks, parameters=("lora",))
    return app_with(model=model, ends=QueueFull("full"))


@pytest.mark.parametrize(
    ("items", "folded"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("a", "1"), ("a", "2")], {"a": ["1", "2"]}),
        ([("a[]", "1")], {"a": ["1"]}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[0]", "1"), ("a[1]", "2")], {"a": ["1", "2"]}),
        ([("a", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
        ([("a[b][]", "1"), ("a[b][]", "2")], {"a": {"b": ["1", "2"]}}),
        ([("a[0][b]", "1"), ("a[0][c]", "2")], {"a": [{"b": "1", "c": "2"}]}),
        ([("a]b[", "1"), ("", "2"), ("[]", "3")], {"a]b[": "1", "": "2", "[]": "3"}),
        ([("a" + "[b]" * 9, "1")], {"a" + "[b]" * 9: "1"}),
    ],
)
def test_names_with_brackets_are_lists_and_dicts(items: Any, folded: dict[str, Any]) -> None:
    assert fold(items) == folded


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("n", "2"),
        ("seed", "7"),
        ("seed", "[7, 8]"),
        ("num_inference_steps", "20.0"),
        ("guidance_scale", "3.5"),
        ("stream", "false"),
        ("stream", "False"),
        ("size", ""),
        ("n", ""),
        ("n", "null"),
        ("prompt", "null"),
        ("lora", '[{"name": "a", "scale": 0.5}]'),
        ("prompt", "[a] dog"),
        ("prompt", '{"a": "dog"}'),
    ],
)
@pytest.mark.parametrize("kind", ["multipart", "urlencoded"])
def test_text_stands_for_what_the_field_takes(
    app: FastAPI, kind: str, field: str, text: str
) -> None:
    data = {"prompt": "a", field: text}
    files = {"files": {"ignored": b""}} if kind == "multipart" else {}
    assert ask(app, "POST", IMAGES, data=data, **files).status_code == 429


@pytest.mark.parametrize(
    ("field", "text", "param"),
    [
        ("n", "two", "n"),
        ("n", "11", "n"),
        ("seed", "x", "seed"),
        ("guidance_scale", "nan", "guidance_scale"),
        ("stream", "perhaps", "stream"),
        ("lora", "[", "lora"),
        ("lora[0][path]", "/etc", "lora.0.name"),
        ("prompt[a]", "b", "prompt"),
    ],
)
def test_text_that_stands_for_nothing_is_refused(
    app: FastAPI, field: str, text: str, param: str
) -> None:
    response = ask(app, "POST", IMAGES, data={"prompt": "a", field: text})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_file_in_the_place_of_text_is_refused(app: FastAPI) -> None:
    response = ask(app, "POST", IMAGES, files={"prompt": b"\xff\xfe"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")


# Jobs are accepted though the engine's queue is full.
_fields = sorted(EditsRequest.model_fields.keys() - {"run_in_background"})
_names = st.sampled_from([*_fields, "image[]", "a[b]", "lora[0][name]"])
_texts = st.text(max_size=8) | st.sampled_from(["1", "true", "[]", "{}", "null", "64x64", "-1"])
_fuzz = settings(deadline=None, derandomize=True, database=None, max_examples=100)


@_fuzz
@given(data=st.dictionaries(_names, _texts, max_size=4), path=st.sampled_from([EDITS, VARIATIONS]))
def test_no_form_makes_the_server_fail(app: FastAPI, data: dict[str, str], path: str) -> None:
    response = ask(app, "POST", path, data={"prompt": "a", **data}, files={"image": FILE})
    assert response.status_code in (400, 429)
    assert response.json()["error"]["message"]


@_fuzz
@given(content=st.binary(max_size=200))
def test_no_bytes_in_a_form_make_the_server_fail(app: FastAPI, content: bytes) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + content
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = ask(app, "POST", EDITS, content=body, headers=headers)
    assert response.status_code == 400


def test_the_schema_of_the_routes_is_that_of_the_bodies(app: FastAPI) -> None:
    schema = ask(app, "GET", "/openapi.json").json()
    described = schema["paths"][IMAGES]["post"]
    bodies = described["requestBody"]["content"]
    assert bodies.keys() == {"application/json", "multipart/form-data"}
    fields = bodies["application/json"]["schema"]["properties"]
    assert fields.keys() == ImagesRequest.model_fields.keys()
    assert "$defs" not in json.dumps(described)
    assert {"200", "202", "400", "401", "429", "503"} <= described["responses"].keys()
