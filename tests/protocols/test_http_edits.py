"""Edits and variations, by the unmodified openai package against a real engine."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx2
import msgspec
import numpy as np
import openai
import pytest
from http_serving import MODEL, app_with, ask
from openai_client import encoded, pixels_of
from PIL import Image
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.postprocess.metadata import read_parameters

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
WIDTH, HEIGHT = 64, 96


def gradient(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    red, green = np.broadcast_arrays(rows, columns)
    return Image.fromarray(np.concatenate([red, green, np.full_like(red, 90)], axis=2))


PICTURE = gradient()
FILE = encoded(PICTURE)


def half_mask(*, alpha: bool) -> Image.Image:
    """The left half is to change."""
    change = np.zeros((HEIGHT, WIDTH), np.uint8)
    change[:, : WIDTH // 2] = 255
    if not alpha:
        return Image.fromarray(change)
    return Image.fromarray(np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), 255 - change]))


def edit(client: openai.OpenAI, image: Any = FILE, **given: Any) -> Any:
    extra = {"num_inference_steps": 2, "seed": 3, **given.pop("extra", {})}
    fields = {"prompt": "a red heart", "size": f"{WIDTH}x{HEIGHT}", **given}
    return client.images.edit(image=image, extra_body=extra, **fields)


def made_directly(
    engine: EngineProcess, pictures: dict[str, np.ndarray[Any, Any]], **params: Any
) -> np.ndarray[Any, Any]:
    given = {"prompt": "a red heart", "width": WIDTH, "height": HEIGHT, "seed": 3, **params}
    headers = {name: header_of(pixels) for name, pixels in pictures.items()}
    (req,) = requests_of(SamplingParams(**given), engine.wait_ready(90), headers)
    return engine.client.submit(req, [*pictures.values()]).result(60).pixels[0].astype(int)


def test_an_edit_is_image_to_image_as_by_every_other_way_in(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    reply = edit(client, extra={"strength": 0.75, "num_inference_steps": 4})
    direct = made_directly(
        engine, {"image": np.asarray(PICTURE)}, strength=0.75, num_inference_steps=4
    )
    assert np.abs(pixels_of(reply.data[0]) - direct).max() <= 1
    assert reply.size == f"{WIDTH}x{HEIGHT}"


@pytest.mark.parametrize("alpha", [True, False])
def test_a_mask_changes_what_it_shows_and_keeps_the_rest(
    client: openai.OpenAI, engine: EngineProcess, alpha: bool
) -> None:
    mask = half_mask(alpha=alpha)
    reply = edit(client, mask=encoded(mask), extra={"strength": 1.0, "num_inference_steps": 4})
    pictures = {"image": np.asarray(PICTURE), "mask": np.asarray(half_mask(alpha=False))}
    direct = made_directly(engine, pictures, strength=1.0, num_inference_steps=4)
    made = pixels_of(reply.data[0])
    assert np.abs(made - direct).max() <= 1
    extra = {"strength": 1.0, "num_inference_steps": 4, "keep_unmasked": True}
    kept = pixels_of(edit(client, mask=encoded(mask), extra=extra).data[0])
    assert (kept[:, WIDTH // 2 :] == np.asarray(PICTURE)[:, WIDTH // 2 :]).all()
    assert np.abs(kept - made)[:, : WIDTH // 2].max() <= 1
    unlike = np.abs(made - np.asarray(PICTURE).astype(int)).mean(axis=(0, 2))
    assert unlike[: WIDTH // 4].mean() > unlike[-WIDTH // 4 :].mean()


@pytest.mark.parametrize(
    "image",
    [
        FILE,
        [FILE],
        ("photo.png", FILE, "image/png"),
        io.BytesIO(FILE),
        [("a.jpg", encoded(PICTURE, "JPEG"), "text/plain")],
        encoded(PICTURE, "WEBP"),
    ],
    ids=["bytes", "list", "named", "file", "jpeg by another name", "webp"],
)
def test_a_picture_is_taken_in_every_form_that_the_client_sends(
    client: openai.OpenAI, image: Any
) -> None:
    assert edit(client, image).data[0].b64_json


def test_markup_lies_over_the_picture(client: openai.OpenAI) -> None:
    marks, marked = Image.new("RGBA", PICTURE.size), PICTURE.copy()
    for picture, color in ((marks, (255, 0, 0, 255)), (marked, (255, 0, 0))):
        picture.paste(color, (8, 8, 40, 60))
    guided = edit(client, markup=encoded(marks), extra={"strength": 0.5})
    drawn = edit(client, encoded(marked), extra={"strength": 0.5})
    plain = edit(client, extra={"strength": 0.5})
    found = [pixels_of(reply.data[0]).astype(int) for reply in (guided, drawn, plain)]
    assert np.abs(found[0] - found[1]).max() <= 1
    assert np.abs(found[0] - found[2]).max() > 1


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]"])
def test_a_picture_is_taken_under_each_of_its_names(url: str, name: str) -> None:
    data = {"prompt": "a dog", "num_inference_steps": "1", "size": "64x64"}
    response = httpx2.post(url + EDITS, files={name: FILE}, data=data, timeout=60)
    assert response.status_code == 200


@pytest.mark.parametrize("name", ["image", "images"])
def test_json_carries_pictures_as_data_urls(url: str, name: str) -> None:
    text = "data:image/png;base64," + base64.b64encode(FILE).decode()
    body = {"prompt": "a dog", name: [{"image_url": text}], "num_inference_steps": 1}
    response = httpx2.post(url + EDITS, json=body, timeout=60)
    assert response.status_code == 200


def test_text_in_a_form_becomes_what_the_field_needs(client: openai.OpenAI) -> None:
    extra = {
        "num_inference_steps": 3,
        "true_cfg_scale": 2.5,
        "seed": [5, 9],
        "stream_progress": False,
        "negative_prompt": "",
        "lora": [],
        "nested": {"a": [1, 2]},
    }
    reply = edit(client, extra=extra)
    recipes = [read_parameters(base64.b64decode(image.b64_json)) for image in reply.data]
    assert [recipe.params.seed for recipe in recipes] == [5, 9]
    assert recipes[0].params.true_cfg_scale == 2.5
    assert recipes[0].params.num_inference_steps == 3
    assert any("nested" in warning for warning in texts(reply.warnings))


def test_without_a_size_the_picture_says_it(client: openai.OpenAI) -> None:
    reply = edit(client, encoded(gradient(200, 100)), size="auto")
    width, height = (int(side) for side in reply.size.split("x"))
    assert width == 2 * height


def test_a_photo_is_turned_as_its_exif_says(client: openai.OpenAI) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = PICTURE.transpose(Image.Transpose.ROTATE_90)
    options = {"strength": 0.5, "num_inference_steps": 2}
    upright = edit(client, extra=options)
    lying = edit(client, encoded(turned, exif=exif), extra=options)
    assert (pixels_of(lying.data[0]) == pixels_of(upright.data[0])).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_variations_differ_from_each_other_and_resemble_the_picture(client: openai.OpenAI) -> None:
    extra = {"num_inference_steps": 4, "strength": 0.5, "seed": 1}
    reply = client.images.create_variation(image=FILE, n=2, size="128x128", extra_body=extra)
    first, second = (pixels_of(image) for image in reply.data)
    assert first.shape == (128, 128, 3)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("image", "given", "param"),
    [
        (b"no picture", {}, "image"),
        (b"", {}, "image"),
        (FILE[: len(FILE) // 2], {}, "image"),
        ([FILE, FILE], {}, "image"),
        (FILE, {"mask": b"no picture"}, "mask"),
        (FILE, {"mask": encoded(gradient(32, 32))}, "mask"),
        (FILE, {"extra": {"strength": 1.5}}, "strength"),
        (FILE, {"extra": {"num_inference_steps": "many"}}, "num_inference_steps"),
        (FILE, {"markup": FILE, "mask": FILE}, "markup"),
        (FILE, {"markup": encoded(gradient(32, 32))}, "markup"),
        (FILE, {"markup": b"no picture"}, "markup"),
        (FILE, {"size": "63x96"}, "size"),
        (FILE, {"background": "transparent"}, "background"),
        (FILE, {"n": 11}, "n"),
    ],
)
def test_what_can_not_be_edited_is_refused_by_the_name_of_its_field(
    client: openai.OpenAI, image: Any, given: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        edit(client, image, **given)
    assert caught.value.param == param
    assert "_path" not in caught.value.message


def test_input_fidelity_is_taken_and_told_to_be_idle(client: openai.OpenAI) -> None:
    reply = edit(client, input_fidelity="high")
    assert any("input_fidelity" in warning for warning in texts(reply.warnings))


def test_a_url_is_not_fetched(url: str) -> None:
    body = {"prompt": "a dog", "image": "http://127.0.0.1:1/a.png"}
    error = httpx2.post(url + EDITS, json=body).json()["error"]
    assert error["param"] == "image"


@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
def test_a_picture_is_needed(url: str, path: str) -> None:
    error = httpx2.post(url + path, json={"prompt": "a dog"}).json()["error"]
    assert (error["param"], error["code"]) == ("image", "missing_required_parameter")


@pytest.mark.parametrize(
    ("tasks", "given", "param"),
    [
        (("text-to-image",), {}, "image"),
        (("text-to-video", "image-to-video"), {}, "model"),
        (("text-to-image", "image-to-image"), {"mask": encoded(half_mask(alpha=True))}, "mask"),
        (("image-edit",), {"strength": "0.5"}, "strength"),
        (("inpainting",), {}, "mask"),
    ],
)
def test_what_the_model_can_not_do_is_refused(
    tasks: Any, given: dict[str, Any], param: str
) -> None:
    app = app_with(model=msgspec.structs.replace(MODEL, tasks=tasks), ends=QueueFull("full"))
    files = {"image": FILE} | {name: given.pop(name) for name in ("mask",) if name in given}
    response = ask(app, "POST", EDITS, files=files, data={"prompt": "a", **given})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_model_that_must_have_a_mask_makes_no_variations() -> None:
    app = app_with(model=msgspec.structs.replace(MODEL, tasks=("inpainting",)), ends=QueueFull(""))
    response = ask(app, "POST", VARIATIONS, files={"image": FILE})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "image")


def test_a_model_that_must_have_a_mask_takes_the_transparency_of_the_picture() -> None:
    app = app_with(model=msgspec.structs.replace(MODEL, tasks=("inpainting",)), ends=QueueFull(""))
    clear = PICTURE.copy()
    clear.putalpha(half_mask(alpha=False))
    response = ask(app, "POST", EDITS, files={"image": encoded(clear)}, data={"prompt": "a"})
    assert response.status_code == 429


def test_a_model_that_needs_a_picture_says_where_to_send_it() -> None:
    app = app_with(model=msgspec.structs.replace(MODEL, tasks=("image-edit",)), ends=QueueFull(""))
    response = ask(app, "POST", "/v1/images/generations", json={"prompt": "a"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "image")
    assert EDITS in response.json()["error"]["message"]
