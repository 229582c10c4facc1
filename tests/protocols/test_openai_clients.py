"""What OpenAI's clients expect beyond the common case: strict types, old model names, and fields
written as other servers take them. The engine is one that ends each request at once."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, MODEL, VIDEO_MODEL, app_over, app_with, ask, serving
from openai.types import (
    ImageEditCompletedEvent,
    ImageGenCompletedEvent,
    ImagesResponse,
    Video,
    VideoDeleteResponse,
)
from openai_client import client_of, encoded
from PIL import Image
from told import texts

from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.request import Req

EDITS, VARIATIONS, VIDEOS = "/v1/images/edits", "/v1/images/variations", "/v1/videos"
HEART = {"prompt": "a red heart"}
PNG = encoded(Image.new("RGB", (96, 96)))
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


class InstantEngine(FakeEngine):
    """Ends each request with an image when it is submitted."""

    def submit(self, req: Req, pictures: Any = ()) -> Any:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle


def instant(**model: Any) -> FastAPI:
    engine = InstantEngine()
    engine.model = msgspec.structs.replace(MODEL, **model)
    return app_over(engine)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    tasks = ("text-to-image", "image-to-image", "inpainting")
    return instant(tasks=tasks, parameters=("lora", "strength"))


@pytest.fixture(scope="module")
def videos() -> FastAPI:
    """Accepts jobs that its engine never starts."""
    return app_with(model=VIDEO_MODEL, ends=QueueFull("full"))


def answered(app: FastAPI, path: str = IMAGES, **body: Any) -> dict[str, Any]:
    response = ask(app, "POST", path, json={**HEART, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def refused(app: FastAPI, path: str = IMAGES, **body: Any) -> dict[str, Any]:
    response = ask(app, "POST", path, json={**HEART, **body})
    assert response.status_code == 400
    return dict(response.json()["error"])


def events(app: FastAPI, path: str, **body: Any) -> list[dict[str, Any]]:
    text = ask(app, "POST", path, json={**HEART, "stream": True, **body}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines]


# -- types


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"quality": "auto"},
        {"quality": "hd", "user": "me"},
        {"quality": "max", "safety_identifier": "me"},
        {"output_format": "jpeg", "n": 2},
        {"response_format": "url"},
    ],
)
def test_replies_are_of_openais_types(app: FastAPI, fields: dict[str, Any]) -> None:
    for path, more in ((IMAGES, {}), (EDITS, {"image": DATA_URL}), (VARIATIONS, {"image": PNG})):
        if path == VARIATIONS:
            form = {"data": {**HEART, **fields}, "files": {"image": PNG}}
            reply = ask(app, "POST", path, **form).json()
        else:
            reply = answered(app, path, **fields, **more)
        ImagesResponse.model_validate(reply, strict=True)


def test_the_quality_of_a_reply_is_the_one_asked_for(app: FastAPI) -> None:
    assert "quality" not in answered(app)
    assert "quality" not in answered(app, quality="auto")
    assert answered(app, quality="standard")["quality"] == "medium"
    assert answered(app, quality="max")["quality"] == "max"


def test_the_identifier_of_a_reply_is_the_one_sent(app: FastAPI) -> None:
    assert answered(app, user="me")["safety_identifier"] == "me"
    assert answered(app, user="me", safety_identifier="you")["safety_identifier"] == "you"
    assert "safety_identifier" not in answered(app, user="")


@pytest.mark.parametrize("fields", [{}, {"quality": "low", "user": "me"}])
def test_events_are_of_openais_types(app: FastAPI, fields: dict[str, Any]) -> None:
    (event,) = events(app, IMAGES, **fields)
    ImageGenCompletedEvent.model_validate(event, strict=True)
    (event,) = events(app, EDITS, image=DATA_URL, **fields)
    ImageEditCompletedEvent.model_validate(event, strict=True)


def test_videos_are_of_openais_types_but_for_their_size(videos: FastAPI) -> None:
    # OpenAI's own sizes are four; ours are what the model can make.
    class AnySize(Video):
        size: str  # type: ignore[assignment]

    made = answered(videos, VIDEOS, seconds="2")
    AnySize.model_validate(made, strict=True)
    listed = ask(videos, "GET", VIDEOS).json()
    AnySize.model_validate(listed["data"][0], strict=True)
    deleted = ask(videos, "DELETE", f"{VIDEOS}/{made['id']}").json()
    VideoDeleteResponse.model_validate(deleted, strict=True)


# -- old model names


@pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3"])
def test_clients_of_old_models_get_links(app: FastAPI, model: str) -> None:
    (image,) = answered(app, model=model)["data"]
    assert image["url"].startswith("http://")
    assert "b64_json" not in image
    (image,) = answered(app, model=model, response_format="b64_json")["data"]
    assert "url" not in image
    assert events(app, IMAGES, model=model)[0]["b64_json"]


def test_clients_of_other_models_get_the_image_itself(app: FastAPI) -> None:
    for model in ("gpt-image-1", "dall-e-4", ""):
        assert "b64_json" in answered(app, model=model)["data"][0]


def test_the_calls_of_langchains_wrapper_are_answered(app: FastAPI) -> None:
    # DallEAPIWrapper joins the links of the reply.
    with serving(app) as url, client_of(url) as client:
        for model, quality in (("dall-e-2", openai.omit), ("dall-e-3", "standard")):
            reply = client.images.generate(
                prompt="a red heart", n=2, size="96x96", model=model, quality=quality
            )
            links = [image.url for image in reply.data or ()]
            assert len(links) == 2
            assert all(httpx2.get(link or "").is_success for link in links)


# -- what other servers take


@pytest.mark.parametrize(
    "fields",
    [
        {"size": ""},
        {"output_format": "jpg"},
        {"output_format": "PNG"},
        {"num_inference_steps": 2.0, "width": 96.0, "n": 1.0, "seed": 3.0},
        {"seed": -1},
        {"seed": [-1, 5]},
    ],
)
def test_other_ways_to_say_the_same_are_taken(app: FastAPI, fields: dict[str, Any]) -> None:
    assert "warnings" not in answered(app, **fields)


def test_whole_numbers_only_stand_for_integers(app: FastAPI) -> None:
    assert refused(app, num_inference_steps=2.5)["param"] == "num_inference_steps"
    assert refused(app, n=1e300)["param"] == "n"


def test_a_lora_alone_is_a_list_of_one(app: FastAPI) -> None:
    full = app_with(model=msgspec.structs.replace(MODEL, parameters=("lora",)), ends=QueueFull(""))
    response = ask(full, "POST", IMAGES, json={**HEART, "lora": {"name": "a", "scale": 0.5}})
    assert response.status_code == 429


def test_formats_are_named_in_replies_as_openai_does(app: FastAPI) -> None:
    assert answered(app, output_format="JPG")["output_format"] == "jpeg"


def test_explicit_sides_overrule_the_size_with_a_warning(app: FastAPI) -> None:
    reply = answered(app, size="96x96", width=64)
    assert (reply["size"], texts(reply["warnings"])) == ("64x96", ["width=64 overrules size=96x96"])
    assert "warnings" not in answered(app, size="96x96", width=96)


def test_explicit_frames_overrule_seconds_with_a_warning(videos: FastAPI) -> None:
    video = answered(videos, VIDEOS, seconds="1", num_frames=13, fps=8)
    assert (video["num_frames"], video["seconds"]) == (13, "1.62")
    assert texts(video["warnings"]) == ["num_frames=13 overrules seconds=1"]
    assert "warnings" not in answered(videos, VIDEOS, seconds="1", num_frames=9, fps=8)


@pytest.mark.parametrize("name", ["extra_body", "extra_args", "extra_params"])
def test_fields_nested_by_mistake_are_taken_with_a_warning(app: FastAPI, name: str) -> None:
    reply = answered(app, seed=4, **{name: {"seed": 5, "width": 64, "oddity": 1}})
    assert (reply["seeds"], reply["size"]) == ([4], "64x96")
    assert len(reply["warnings"]) == 2
    assert any(name in warning for warning in texts(reply["warnings"]))
    assert any("oddity" in warning for warning in texts(reply["warnings"]))
    assert refused(app, **{name: {"num_inference_steps": "x"}})["param"] == "num_inference_steps"


def test_fields_nested_in_a_form_are_taken_too(app: FastAPI) -> None:
    for form in ({"extra_body": '{"width": 64}'}, {"extra_body[width]": "64"}):
        response = ask(app, "POST", IMAGES, data={**HEART, **form})
        assert response.json()["size"] == "64x96"


@pytest.mark.parametrize("name", ["url", "url[]", "images", "image[]"])
def test_the_image_of_an_edit_has_other_names_in_forms(app: FastAPI, name: str) -> None:
    response = ask(app, "POST", EDITS, data={**HEART, name: DATA_URL})
    assert response.status_code == 200
    assert "warnings" not in response.json()


@pytest.mark.parametrize("nothing", [[], "", None])
def test_an_image_that_is_empty_gives_way_to_other_names(app: FastAPI, nothing: Any) -> None:
    assert answered(app, EDITS, image=nothing, url=[DATA_URL])["data"]
    assert refused(app, EDITS, image=nothing)["message"] == "image is missing"


def test_a_lora_by_its_path_is_refused(app: FastAPI) -> None:
    error = refused(app, IMAGES, lora={"name": "x", "path": "/x"})
    assert (error["param"], "leave it out" in error["message"]) == ("lora.path", True)


@pytest.mark.parametrize(
    "fields",
    [
        {"images": [{"file_id": "file-1"}]},
        {"image": {"file_id": "file-1"}},
        {"image": DATA_URL, "mask": {"file_id": "file-1"}},
    ],
)
def test_file_ids_are_refused_with_what_to_send_instead(
    app: FastAPI, fields: dict[str, Any]
) -> None:
    error = refused(app, EDITS, **fields)
    assert error["param"] in ("image", "mask")
    assert "image_url" in error["message"]


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {**HEART, "image_reference": {"image_url": DATA_URL}}},
        {"data": {**HEART, "image_reference": json.dumps({"image_url": DATA_URL})}},
        {"data": {**HEART, "input_reference": DATA_URL}},
        {"data": {**HEART, "reference_url": DATA_URL}},
    ],
)
def test_the_image_of_a_video_has_other_names_and_forms(
    videos: FastAPI, sent: dict[str, Any]
) -> None:
    made = ask(videos, "POST", VIDEOS, **sent).json()
    assert "warnings" not in made
    assert ask(videos, "GET", f"/v1/jobs/{made['id']}").json()["pictures"] == ["image"]


def test_a_stream_ignores_where_images_should_go_with_a_warning(app: FastAPI) -> None:
    (event,) = events(app, IMAGES, response_format="url")
    assert event["b64_json"]
    assert "response_format" in texts(event["warnings"])[0]


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/jobs"])
def test_a_page_without_entries_is_empty(videos: FastAPI, path: str) -> None:
    assert ask(videos, "GET", f"{path}?limit=0").json()["data"] == []


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/jobs"])
def test_the_page_after_an_unknown_id_is_empty(videos: FastAPI, path: str) -> None:
    page = ask(videos, "GET", f"{path}?after=nothing").json()
    assert (page["data"], page["has_more"], page["first_id"]) == ([], False, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quality", "high"),
        ("style", "vivid"),
        ("complexity", "low"),
        ("input_fidelity", "high"),
        ("moderation", "low"),
        ("partial_images", 2),
        ("output_compression", 50),
        ("previews", True),
        ("stream_progress", True),
        ("unheard_of", 1),
    ],
)
def test_every_field_without_effect_is_named_in_warnings(
    app: FastAPI, field: str, value: Any
) -> None:
    (warning,) = texts(answered(app, **{field: value})["warnings"])
    assert field in warning


def test_warnings_beyond_the_limit_are_counted(app: FastAPI) -> None:
    warnings = texts(answered(app, **{f"key{index}": 1 for index in range(30)})["warnings"])
    assert len(warnings) == 20
    assert warnings[-1] == "and 11 more"
