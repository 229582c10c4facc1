"""Controls in bodies of the image and video routes."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from fastapi import FastAPI
from http_serving import IMAGES, MODEL, app_with, ask
from openai_client import encoded
from PIL import Image

from multimodal_gen.errors import QueueFull

PICTURE = encoded(Image.new("RGB", (32, 24), "red"))
IN_BASE64 = base64.b64encode(PICTURE).decode()


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Takes every good request as far as a full queue: 429."""
    tasks = ("text-to-image", "image-to-image")
    model = msgspec.structs.replace(MODEL, tasks=tasks, parameters=("control",))
    return app_with(model=model, ends=QueueFull("full"))


def posted(app: FastAPI, control: Any, path: str = IMAGES, **more: Any) -> httpx2.Response:
    content = json.dumps({"prompt": "x", "control": control, **more}).encode()
    return ask(app, "POST", path, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    "image",
    [
        IN_BASE64,
        f"data:image/png;base64,{IN_BASE64}",
        {"image_url": f"data:image/png;base64,{IN_BASE64}"},
    ],
)
def test_a_picture_is_a_data_url_or_base64(app: FastAPI, image: Any) -> None:
    control = {"name": "canny", "image": image, "scale": 0.5, "start": 0.1, "stop": 0.9}
    assert posted(app, [control]).status_code == 429
    assert posted(app, control).status_code == 429  # without a list
    assert posted(app, [control], "/v1/images/edits", image=IN_BASE64).status_code == 429


def test_a_form_has_it_as_a_file(app: FastAPI) -> None:
    files = {"control[0][image]": ("a.png", io.BytesIO(PICTURE), "image/png")}
    data = {"prompt": "x", "control[0][name]": "canny", "control[0][scale]": "0.5"}
    assert ask(app, "POST", IMAGES, data=data, files=files).status_code == 429


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "/etc/passwd"}, "must be a file, a data URL or base64"),
        ({"image": "file:///etc/passwd"}, "URLs are not fetched"),
        (
            {"image": "http://169.254.169.254/a.png"},
            "control.image='http://169.254.169.254/a.png': URLs are not fetched",
        ),
        ({"image": None}, "control.0.image"),
        ({"path": "x"}, "control.0.path"),
        ({"scale": -1}, "scale must be 0 to 100"),
        ({"start": 0.5, "stop": 0.5}, "must be 0 <= start < stop <= 1"),
        ({"name": ""}, "must be NAME=IMAGE"),
    ],
)
def test_what_is_not_possible_is_refused(
    app: FastAPI, change: dict[str, Any], message: str
) -> None:
    response = posted(app, [{"name": "canny", "image": IN_BASE64, **change}])
    assert response.status_code == 400
    assert message in response.text


def test_too_many_are_refused_before_a_picture_is_decoded(app: FastAPI) -> None:
    broken = {"name": "canny", "image": "bm8gcGljdHVyZQ=="}
    response = posted(app, [broken] * 5)
    assert response.status_code == 400
    assert "5 controls" in response.text


def test_a_model_without_controls_refuses_them() -> None:
    app = app_with(ends=QueueFull("full"))
    response = posted(app, [{"name": "canny", "image": IN_BASE64}])
    assert response.status_code == 400
    assert "not supported by flux" in response.json()["error"]["message"]


def test_pictures_are_sent_in_the_order_of_the_controls() -> None:
    sent: list[Any] = []

    def submit(req: Any, pictures: Any) -> None:
        sent.append((req, pictures))
        raise QueueFull("full")

    model = msgspec.structs.replace(MODEL, parameters=("control",))
    app = app_with(model=model, ends=QueueFull("full"), submit=submit)
    small = base64.b64encode(encoded(Image.new("RGB", (8, 8)))).decode()
    posted(app, [{"name": "b", "image": IN_BASE64}, {"name": "a", "image": small}])
    ((req, pictures),) = sent
    assert [choice.name for choice in req.params.control] == ["b", "a"]
    assert [*req.pictures] == ["control_1", "control_2"]
    assert [np.shape(each) for each in pictures] == [(24, 32, 3), (8, 8, 3)]
