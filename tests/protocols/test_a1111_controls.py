"""Units of the web UI's ControlNet extension become controls."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from http_serving import MODEL, app_without_engine, ask
from openai_client import encoded
from PIL import Image
from told import texts

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.entrypoints.http.a1111.input_images.pictures import inputs_of
from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage, TextToImage
from multimodal_gen.entrypoints.http.a1111.translation import to_sampling_params
from multimodal_gen.errors import InvalidRequest

STEERED = msgspec.structs.replace(
    MODEL, tasks=("text-to-image", "image-to-image"), parameters=("control", "strength")
)


def picture(width: int, height: int) -> str:
    columns = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
    return base64.b64encode(encoded(Image.fromarray(columns).convert("RGB"))).decode()


def body_of(*units: dict[str, Any], kind: type[Generation] = TextToImage, **more: Any) -> Any:
    scripts = {"controlnet": {"args": [*units]}}
    return kind(prompt="x", width=96, height=64, alwayson_scripts=scripts, **more)


UNIT = {"model": "edges [a1b2c3]", "module": "none", "image": picture(64, 64)}


def test_a_unit_becomes_a_control() -> None:
    spans = {"weight": 0.8, "guidance_start": 0.1, "guidance_end": 0.9, "pixel_perfect": True}
    params, warnings = to_sampling_params(body_of({**UNIT, **spans}, {"enabled": False}), STEERED)
    assert params.control == (ControlChoice("edges", None, 0.8, 0.1, 0.9),)
    assert warnings == []


def test_its_picture_is_cut_to_the_shape_of_the_output_as_its_resize_mode_says() -> None:
    modes = ("Crop and Resize", "Resize and Fill", "Just Resize")
    body = body_of(*({**UNIT, "resize_mode": mode} for mode in modes))
    params, _ = to_sampling_params(body, STEERED)
    pixels = inputs_of(body, params, STEERED, 10**6).pixels
    assert [*pixels] == ["control_1", "control_2", "control_3"]
    assert [each.shape for each in pixels.values()] == [(64, 96, 3)] * 2 + [(64, 64, 3)]
    cropped, filled, _ = pixels.values()
    assert np.ptp(filled[0, :16]) == 0 < np.ptp(cropped[0, :16])  # its border is repeated


def test_a_picture_for_the_image_encoder_of_an_ip_adapter_is_not_cut() -> None:
    body = body_of({**UNIT, "model": "ip-adapter_sd15", "module": "ip-adapter_clip_sd15"})
    params, warnings = to_sampling_params(body, STEERED)
    assert params.control == (ControlChoice("ip-adapter_sd15", None),)
    assert warnings == []
    assert inputs_of(body, params, STEERED, 10**6).pixels["control_1"].shape == (64, 64, 3)


def test_a_unit_without_a_picture_has_the_first_image_of_img2img() -> None:
    unit = {"model": "edges", "image": None}
    body = body_of(unit, kind=ImageToImage, init_images=[picture(96, 64)])
    params, _ = to_sampling_params(body, STEERED)
    pixels = inputs_of(body, params, STEERED, 10**6).pixels
    assert np.array_equal(pixels["control_1"], pixels["image"])
    with pytest.raises(InvalidRequest, match="needs an image"):
        inputs_of(body_of(unit), params, STEERED, 10**6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "canny"}, "preprocessors are not available: send the finished picture"),
        ({"module": "ip-adapter_face_id"}, "preprocessors are not available"),
        ({"weight": "much"}, "scale must be a number"),
    ],
)
def test_a_unit_that_is_not_possible_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        to_sampling_params(body_of({**UNIT, **change}), STEERED)


@pytest.mark.parametrize("image", ["/etc/passwd", "http://host/a.png", "file:///a.png"])
def test_a_picture_is_neither_a_path_nor_a_url(image: str) -> None:
    body = body_of({**UNIT, "image": image})
    with pytest.raises(InvalidRequest, match=r"controlnet"):
        inputs_of(body, to_sampling_params(body, STEERED)[0], STEERED, 10**6)


def test_what_of_a_unit_has_no_effect_is_named() -> None:
    unit = {**UNIT, "control_mode": "My prompt is more important", "effective_region_mask": "x"}
    _, warnings = to_sampling_params(body_of(unit), STEERED)
    assert [warning.split(":")[1].split()[0] for warning in texts(warnings)] == [
        "control_mode",
        "'effective_region_mask'",
    ]


def test_the_extension_s_lists_have_the_operator_s_controls(tmp_path: Path) -> None:
    (tmp_path / "edges.safetensors").touch()
    app = app_without_engine(control_dir=str(tmp_path))
    assert ask(app, "GET", "/controlnet/model_list").json() == {"model_list": ["edges"]}
    assert ask(app, "GET", "/controlnet/module_list").json() == {"module_list": ["none"]}
