"""Enlarging images with the unmodified webuiapi package, without an engine."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import webuiapi
from http_serving import app_with, app_without_engine, ask, serving
from openai_client import encoded
from PIL import Image
from tiny_checkpoints.pictures import picture

from multimodal_gen.errors import QueueFull

IMAGE = picture(40, 30)


@pytest.fixture(scope="module")
def webui() -> Iterator[webuiapi.WebUIApi]:
    with serving(app_without_engine()) as url:
        yield webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1")


@pytest.mark.parametrize(
    ("name", "method"),
    [("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST)],
)
def test_an_image_is_enlarged(webui: webuiapi.WebUIApi, name: str, method: Any) -> None:
    made = webui.extra_single_image(IMAGE, upscaler_1=name, upscaling_resize=3)
    assert made.info == ""
    assert (np.asarray(made.image) == np.asarray(IMAGE.resize((120, 90), method))).all()


def test_without_an_upscaler_an_image_stays_as_it_is(webui: webuiapi.WebUIApi) -> None:
    assert (np.asarray(webui.extra_single_image(IMAGE).image) == np.asarray(IMAGE)).all()


@pytest.mark.parametrize(("crop", "size"), [(True, (100, 100)), (False, (133, 100))])
def test_an_image_is_enlarged_to_a_size(
    webui: webuiapi.WebUIApi, crop: bool, size: tuple[int, int]
) -> None:
    target = {"upscaling_resize_w": 100, "upscaling_resize_h": 100, "upscaling_crop": crop}
    made = webui.extra_single_image(IMAGE, resize_mode=1, upscaler_1="Lanczos", **target)
    assert made.image.size == size


def test_a_second_upscaler_is_mixed_in(webui: webuiapi.WebUIApi) -> None:
    first, second, mixed = (
        np.asarray(webui.extra_single_image(IMAGE, **upscalers).image).astype(float)
        for upscalers in (
            {"upscaler_1": "Lanczos"},
            {"upscaler_1": "Nearest"},
            {
                "upscaler_1": "Lanczos",
                "upscaler_2": "Nearest",
                "extras_upscaler_2_visibility": 0.25,
            },
        )
    )
    assert np.abs(mixed - (0.75 * first + 0.25 * second)).max() <= 1


def test_several_images_are_enlarged_in_order(webui: webuiapi.WebUIApi) -> None:
    transparent = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    made = webui.extra_batch_images([IMAGE, transparent], upscaler_1="Nearest")
    assert [image.size for image in made.images] == [(80, 60), (16, 8)]
    assert made.images[1].mode == "RGBA"


def test_what_is_missing_is_named_and_the_nearest_is_used(webui: webuiapi.WebUIApi) -> None:
    made = webui.extra_single_image(
        IMAGE, upscaler_1="R-ESRGAN <4x+>", codeformer_visibility=0.5, gfpgan_visibility=0
    )
    assert made.image.size == (80, 60)
    assert made.info == (
        "<p>upscaler_1=&#x27;R-ESRGAN &lt;4x+&gt;&#x27;: Lanczos is used instead; "
        "known are None, Lanczos, Nearest</p>"
        "<p>codeformer_visibility has no effect on this server</p>"
    )


def test_keys_of_extensions_are_named(webui: webuiapi.WebUIApi) -> None:
    keys = {"upscale_first": True, "codeformer_weight": 0, "rembg_model": "u2net"}
    reply = webui.session.post(
        f"{webui.baseurl}/extra-single-image", json={"image": base64_of(IMAGE), **keys}
    )
    assert reply.json()["html_info"] == (
        "<p>upscale_first has no effect on this server</p>"
        "<p>rembg_model has no effect on this server</p>"
    )


def test_the_upscalers_are_listed(webui: webuiapi.WebUIApi) -> None:
    assert [each["name"] for each in webui.get_upscalers()] == ["None", "Lanczos", "Nearest"]


def test_results_can_be_left_out(webui: webuiapi.WebUIApi) -> None:
    reply = webui.session.post(
        f"{webui.baseurl}/extra-single-image",
        json={"image": base64_of(IMAGE), "show_extras_results": False},
    )
    assert reply.json() == {"html_info": "", "image": None}


def base64_of(image: Image.Image) -> str:
    return base64.b64encode(encoded(image)).decode()


ENOUGH = app_with(ends=QueueFull(""), max_input_pixels=10_000)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("single-image", {"image": base64_of(IMAGE), "upscaling_resize": 3}, "120x90"),
        ("single-image", {"image": base64_of(IMAGE), "upscaling_resize": 1e300}, "100000"),
        ("single-image", {"image": base64_of(IMAGE), "upscaling_resize": 0}, "more than 0"),
        (
            "single-image",
            {"image": base64_of(IMAGE), "resize_mode": 1, "upscaling_resize_w": 10**400},
            "upscaling_resize_w",
        ),
        ("single-image", {"image": "AAAA"}, "image="),
        ("single-image", {}, "image"),
        ("single-image", {"image": base64_of(IMAGE), "resize_mode": 2}, "resize_mode"),
        ("batch-images", {"imageList": [{"data": base64_of(IMAGE)}] * 9}, "in sum"),
        ("batch-images", {"imageList": ["AAAA"]}, "imageList"),
        (
            "single-image",
            {"image": base64_of(IMAGE), "extras_upscaler_2_visibility": 1.5},
            "extras_upscaler_2_visibility",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(path: str, body: Any, message: str) -> None:
    body = {"upscaler_1": "Lanczos", **body}
    reply = ask(ENOUGH, "POST", f"/sdapi/v1/extra-{path}", json=body)
    assert reply.status_code == 400
    assert message in reply.json()["detail"]
