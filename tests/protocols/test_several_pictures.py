"""Several input pictures, a last frame and a video reach the engine from every HTTP protocol."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from http_serving import MODEL, VIDEO_MODEL, app_over, ask
from openai_client import encoded
from PIL import Image

from multimodal_gen.errors import QueueFull
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.postprocess.video import encode_mp4

EDITS, VIDEOS = "/v1/images/edits", "/v1/videos/sync"
EDITING = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-image", "image-edit", "inpainting"),
    limits=msgspec.structs.replace(MODEL.limits, max_images=3),
)
FILMING = msgspec.structs.replace(
    VIDEO_MODEL,
    tasks=("text-to-video", "image-to-video", "reference-to-video", "video-to-video"),
    limits=msgspec.structs.replace(VIDEO_MODEL.limits, max_images=3),
    parameters=(*VIDEO_MODEL.parameters, "last_image_path", "video_path"),
)
MASKING = msgspec.structs.replace(FILMING, parameters=(*FILMING.parameters, "mask_path"))
SPEAKING = msgspec.structs.replace(VIDEO_MODEL, tasks=("text-to-video",))


def file(width: int, mode: str = "RGB", format: str = "PNG") -> bytes:
    """A picture that its width tells from others."""
    return encoded(Image.new("L", (width, 40), 128).convert(mode), format)


ALPHA, DEEP, MOVING = file(41, "RGBA"), file(42, "I;16"), file(43, "P", "GIF")
CLIP = encode_mp4(np.zeros((9, 32, 48, 3), np.uint8), 8)


def url(data: bytes) -> str:
    return "data:;base64," + base64.b64encode(data).decode()


def asked(model: ModelInfo, path: str, **request: Any) -> tuple[httpx2.Response, dict[str, int]]:
    """The answer, and the pictures that reached the engine, each with its width."""
    seen: dict[str, int] = {}

    def submit(req: Any, pictures: Any) -> None:
        assert [each.shape for each in pictures] == [each.shape for each in req.pictures.values()]
        named = zip(req.pictures, pictures, strict=True)
        seen.update({name: pixels.shape[1 + (pixels.ndim == 4)] for name, pixels in named})
        raise QueueFull("full")

    client: Any = SimpleNamespace(
        model=model, died=None, num_ranks=1, submit=submit, costs=EvaluationCosts()
    )
    return ask(app_over(client), "POST", path, **request), seen


THREE = {"image": 41, "image_2": 42, "image_3": 43}


@pytest.mark.parametrize("name", ["image", "image[]", "images[]"])
def test_a_form_has_several_images_in_their_order(name: str) -> None:
    files = [(name, (f"{i}", each)) for i, each in enumerate((ALPHA, DEEP, MOVING))]
    reply, seen = asked(EDITING, EDITS, data={"prompt": "a"}, files=files)
    assert (reply.status_code, seen) == (429, THREE)


@pytest.mark.parametrize(
    ("name", "wrapped"), [("image", False), ("images", False), ("images", True)]
)
def test_json_has_several_images_in_their_order(name: str, wrapped: bool) -> None:
    links = [url(each) for each in (ALPHA, DEEP, MOVING)]
    given = [{"image_url": link} for link in links] if wrapped else links
    reply, seen = asked(EDITING, EDITS, json={"prompt": "a", name: given})
    assert (reply.status_code, seen) == (429, THREE)


def test_a_mask_is_of_the_first_image() -> None:
    files = [("image[]", file(41)), ("image[]", file(60)), ("mask", file(41, "L"))]
    reply, seen = asked(EDITING, EDITS, data={"prompt": "a"}, files=files)
    assert (reply.status_code, seen) == (429, {"image": 41, "image_2": 60, "mask": 41})


@pytest.mark.parametrize(
    ("model", "count", "words"),
    [
        (EDITING, 4, "image='4 images': at most 3 for this model"),
        (msgspec.structs.replace(EDITING, limits=MODEL.limits), 2, "'2 images': at most 1 for"),
        (MODEL, 1, "only supports text-to-image"),
        (MODEL, 2, "only supports text-to-image"),
    ],
)
def test_more_images_than_the_model_takes_are_refused_before_they_are_decoded(
    model: ModelInfo, count: int, words: str
) -> None:
    files = [("image[]", b"no picture")] * count
    reply, seen = asked(model, EDITS, data={"prompt": "a"}, files=files)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], seen) == (400, "image", {})
    assert words in error["message"]


def test_init_images_are_shown_together_to_a_model_that_takes_several() -> None:
    links = [base64.b64encode(each).decode() for each in (ALPHA, DEEP, MOVING)]
    reply, seen = asked(EDITING, "/sdapi/v1/img2img", json={"prompt": "a", "init_images": links})
    assert (reply.status_code, seen) == (429, THREE)
    body = {"prompt": "a", "init_images": links[:2], "mask": links[0], "inpaint_full_res": False}
    reply, seen = asked(EDITING, "/sdapi/v1/img2img", json=body)
    assert (reply.status_code, seen) == (429, {"image": 41, "image_2": 42, "mask": 41})
    reply, seen = asked(MODEL, "/sdapi/v1/img2img", json={"prompt": "a", "init_images": links})
    assert (reply.status_code, seen) == (400, {})
    assert "init_images='3 images': at most 1 for this model" in reply.text


FRAMES = {"input_reference": file(41), "last_image": file(42), "video": CLIP}


def test_a_video_has_frames_references_and_a_video_in_a_form() -> None:
    files = [*FRAMES.items(), ("image[]", file(50)), ("image[]", file(51))]
    reply, seen = asked(FILMING, VIDEOS, data={"prompt": "a"}, files=files)
    everything = {"image": 41, "image_2": 50, "image_3": 51, "last_image": 42, "video": 48}
    assert (reply.status_code, seen) == (429, everything)


@pytest.mark.parametrize("name", ["image", "input_reference"])
def test_a_video_has_frames_references_and_a_video_in_json(name: str) -> None:
    body = {"prompt": "a", name: [url(file(41)), {"image_url": url(file(50))}]}
    body |= {"last_image": url(FRAMES["last_image"]), "video": url(CLIP)}
    reply, seen = asked(FILMING, VIDEOS, json=body)
    everything = {"image": 41, "image_2": 50, "last_image": 42, "video": 48}
    assert (reply.status_code, seen) == (429, everything)


def test_a_video_has_a_mask_where_the_model_takes_one() -> None:
    files = {"video": CLIP, "mask": file(44, "L")}
    reply, seen = asked(MASKING, VIDEOS, data={"prompt": "a"}, files=files)
    assert (reply.status_code, seen) == (429, {"video": 48, "mask": 44})
    body = {"prompt": "a", "video": url(CLIP), "mask": {"image_url": url(files["mask"])}}
    reply, seen = asked(MASKING, VIDEOS, json=body)
    assert (reply.status_code, seen) == (429, {"video": 48, "mask": 44})


@pytest.mark.parametrize(
    ("model", "given", "param"),
    [
        (FILMING, {"video": CLIP, "mask": file(44, "L")}, "mask"),
        (MASKING, {"mask": file(44, "L")}, "mask"),
        (VIDEO_MODEL, {"input_reference": file(41), "last_image": file(42)}, "last_image"),
        (VIDEO_MODEL, {"video": CLIP}, "video"),
        (FILMING, {"video": file(41)}, "video"),
        (FILMING, {"last_image": file(42)}, "last_image"),
        (FILMING, {"last_image": b"no picture"}, "last_image"),
        (SPEAKING, {"image": ALPHA}, "image"),
    ],
)
def test_what_a_video_model_does_not_take_is_refused_by_the_name_that_was_sent(
    model: ModelInfo, given: dict[str, bytes], param: str
) -> None:
    reply, seen = asked(model, VIDEOS, data={"prompt": "a"}, files=given)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], seen) == (400, param, {})
    assert "_path" not in error["message"].partition(":")[0]


def test_more_images_than_a_video_takes_are_refused_with_their_number() -> None:
    files = [("input_reference", file(41)), *[("image[]", file(42))] * 3]
    reply, _ = asked(FILMING, VIDEOS, data={"prompt": "a"}, files=files)
    assert reply.json()["error"]["message"].startswith("input_reference='4 images': at most 3")


def test_only_the_frames_that_are_asked_for_are_sent() -> None:
    reply, _ = asked(
        FILMING, VIDEOS, data={"prompt": "a", "num_frames": "5"}, files={"video": CLIP}
    )
    assert reply.status_code == 429
    longer = encode_mp4(np.zeros((90, 32, 48, 3), np.uint8), 8)
    reply, _ = asked(FILMING, VIDEOS, data={"prompt": "a"}, files={"video": longer})
    assert "at most 81; num_frames says" in reply.json()["error"]["message"]
