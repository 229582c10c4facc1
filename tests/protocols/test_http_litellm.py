"""What LiteLLM 1.106 puts on the wire, as recorded from it: it pins another openai package than the
tests use, so that it can't be installed beside them."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
from http_serving import VIDEO_MODEL, app_with, ask
from openai_client import decoded, encoded
from tiny_checkpoints.pictures import picture
from told import texts

from multimodal_gen.errors import QueueFull

BOUNDARY = "6a9e31af5200732537dab961b00a43c4"
PNG = "Content-Type: image/png"
HEADERS = {"authorization": "Bearer none", "accept": "*/*", "user-agent": "litellm/1.106.2"}


def form(*fields: tuple[str, str], **files: bytes) -> dict[str, Any]:
    """A multipart body as LiteLLM writes it: the model first, pictures last."""
    parts = [f'form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields] + [
        f'form-data; name="{name}"; filename="image.png"\r\n{PNG}\r\n\r\n'.encode() + file
        for name, file in files.items()
    ]
    lines = [f"--{BOUNDARY}\r\nContent-Disposition: ".encode() + part + b"\r\n" for part in parts]
    content = b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return {"content": content, "headers": HEADERS | kind}


def pictures_in(reply: httpx2.Response) -> list[Any]:
    assert reply.status_code == 200, reply.text
    return [decoded(base64.b64decode(entry["b64_json"])) for entry in reply.json()["data"]]


def test_extras_arrive_beside_the_fields_of_openai(url: str) -> None:
    body = (
        b'{"prompt":"a red heart","model":"m","n":2,"size":"96x64","guidance_scale":2.5,"seed":3,'
        b'"num_inference_steps":4}'
    )
    headers = HEADERS | {"content-type": "application/json"}
    reply = httpx2.post(f"{url}/v1/images/generations", content=body, headers=headers, timeout=60)
    assert [made.shape for made in pictures_in(reply)] == [(64, 96, 3)] * 2
    assert reply.json()["seeds"] == [3, 4]
    idle, small = texts(reply.json()["warnings"])
    assert idle.startswith("guidance_scale has no effect")
    assert small == "height=64: bundled_model draws 96x96 to 128x128 pixels"


def test_the_body_for_a_gpt_model_is_answered(url: str) -> None:
    body = (
        b'{"prompt":"a red heart","model":"gpt-image-1","output_format":"webp","quality":"high",'
        b'"size":"96x64","num_inference_steps":2}'
    )
    headers = HEADERS | {"content-type": "application/json"}
    reply = httpx2.post(f"{url}/v1/images/generations", content=body, headers=headers, timeout=60)
    assert [made.shape for made in pictures_in(reply)] == [(64, 96, 3)]
    assert reply.json()["output_format"] == "webp"


def test_an_edits_list_of_one_picture_is_answered(url: str) -> None:
    fields = [
        ("model", "m"),
        ("size", "96x64"),
        ("num_inference_steps", "2"),
        ("strength", "0.5"),
        ("prompt", "a red heart"),
    ]
    body = form(*fields, **{"image[]": encoded(picture(96, 64))})
    reply = httpx2.post(f"{url}/v1/images/edits", timeout=60, **body)
    assert [made.shape for made in pictures_in(reply)] == [(64, 96, 3)]


def test_an_edit_with_a_mask_is_answered(url: str) -> None:
    fields = [
        ("model", "gpt-image-1"),
        ("n", "1"),
        ("quality", "low"),
        ("num_inference_steps", "2"),
        ("prompt", "a red heart"),
    ]
    files = {"image[]": encoded(picture(96, 64)), "mask": encoded(picture(96, 64, "L"))}
    reply = httpx2.post(f"{url}/v1/images/edits", timeout=60, **form(*fields, **files))
    assert len(pictures_in(reply)) == 1


def test_a_video_is_accepted_as_a_form() -> None:
    fields = [
        ("model", "m"),
        ("prompt", "a red heart"),
        ("seconds", "2"),
        ("size", "96x64"),
        ("num_inference_steps", "3"),
    ]
    app = app_with(model=VIDEO_MODEL, ends=QueueFull("full"))
    files = {"input_reference": encoded(picture(96, 64))}
    for body in (form(*fields), form(*fields, **files)):
        reply = ask(app, "POST", "/v1/videos", **body)
        assert reply.status_code == 200, reply.text
        wanted = {"object": "video", "status": "queued", "seconds": "2", "size": "96x64"}
        assert wanted.items() <= reply.json().items()
