"""What bodies of A1111's clients ask for, in the server's own words."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from http_serving import MODEL, app_with, ask
from openai_client import encoded
from PIL import Image

from multimodal_gen.configs.lora_choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.a1111.masks import mask_of
from multimodal_gen.entrypoints.http.a1111.schema import ImageToImage, TextToImage
from multimodal_gen.entrypoints.http.a1111.translation import (
    fitting,
    to_sampling_params,
    with_infotext,
)
from multimodal_gen.entrypoints.http.media.solvers import solver_named
from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.messages.model_info import Limits, ModelInfo
from multimodal_gen.postprocess.infotext import parse_infotext, write

NOISE = ("ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde", "edm_euler", "unipc")
FLOW = ("flow_euler", "flow_heun", "unipc")
SMALL = msgspec.structs.replace(MODEL, limits=Limits(max_pixels=512 * 512, max_side=1024))


def wanted(model: ModelInfo = MODEL, **body: Any) -> tuple[SamplingParams, list[str]]:
    return to_sampling_params(TextToImage(**body), model)


@pytest.mark.parametrize(
    ("name", "allowed", "solver"),
    [
        ("Euler a", NOISE, "euler_a"),
        ("euler_ancestral", NOISE, "euler_a"),
        ("k_euler", NOISE, "euler"),
        ("DPM++ 2M", NOISE, "dpmpp_2m"),
        ("DPM++ 2M SDE", NOISE, "dpmpp_2m_sde"),
        ("PLMS", NOISE, "pndm"),
        ("DPMSolverMultistepScheduler", NOISE, "dpmpp_2m"),
        ("edm_euler", NOISE, "edm_euler"),
        ("Euler", FLOW, "flow_euler"),
        ("FlowMatchEulerDiscreteScheduler", FLOW, "flow_euler"),
        ("Heun", FLOW, "flow_heun"),
        ("uni_pc", FLOW, "unipc"),
        ("Euler a", FLOW, None),
        ("LCM", NOISE, None),
        ("", NOISE, None),
    ],
)
def test_a_solver_goes_by_many_names(name: str, allowed: tuple[str, ...], solver: str) -> None:
    assert solver_named(name, allowed) == solver


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((512, 512), (512, 512)),
        ((513, 520), (512, 512)),
        ((1, 5), (16, 16)),
        ((1024, 1024), (512, 512)),
        ((1920, 480), (1024, 256)),
        ((2000, 100), (1024, 48)),
        ((10**400, 10**400), (512, 512)),
        ((100, None), (96, None)),
        ((None, None), (None, None)),
        ((0, -8), (0, -8)),
    ],
)
def test_a_size_becomes_one_that_the_model_makes(
    asked: tuple[int | None, int | None], made: tuple[int | None, int | None]
) -> None:
    assert fitting(*asked, SMALL) == made


def test_loras_are_taken_out_of_the_prompt() -> None:
    params, _ = wanted(prompt="a cat <lora:style:0.8>, red <lora:other> <lora:third:1:0.5>")
    assert params.prompt == "a cat, red"
    assert params.lora == (LoraChoice("style", 0.8), LoraChoice("other"), LoraChoice("third", 1))


@pytest.mark.parametrize("tag", ["<lora:>", "<lora::1>", "<lora:a:b>", "<lora:a:true>"])
def test_a_lora_that_is_not_one_is_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="must be <lora:NAME:SCALE>"):
        wanted(prompt=f"a {tag}")


def test_guidance_is_one_number_but_where_client_and_model_know_two() -> None:
    two = msgspec.structs.replace(MODEL, parameters=("true_cfg_scale",))
    for model, body, scales in (
        (MODEL, {"cfg_scale": 7}, (7, None)),
        (MODEL, {"cfg_scale": 7, "distilled_cfg_scale": 3.5}, (7, None)),
        (two, {"cfg_scale": 7}, (7, None)),
        (two, {"cfg_scale": 7, "distilled_cfg_scale": 3.5}, (3.5, 7)),
    ):
        params, _ = wanted(model, **body)
        assert (params.guidance_scale, params.true_cfg_scale) == scales


def test_a_picture_that_is_shown_to_the_model_has_no_strength() -> None:
    edits = msgspec.structs.replace(MODEL, tasks=("image-edit",))
    body = ImageToImage(init_images=[""], denoising_strength=0.5)
    params, warnings = to_sampling_params(body, edits)
    assert params.strength is None
    assert "denoising_strength" in warnings[0]


def test_the_web_uis_own_strength_is_meant_where_none_is_given() -> None:
    changes = msgspec.structs.replace(MODEL, tasks=("image-to-image",))
    params, _ = to_sampling_params(ImageToImage(init_images=[""]), changes)
    assert params.strength == 0.75


def test_a_masks_edges_are_blurred_as_the_web_ui_does() -> None:
    given = np.zeros((64, 96), np.uint8)
    given[:, 48:] = 255
    smooth = [127.5 * (1 + math.erf((x - 47.5) / math.sqrt(2) / 4)) for x in range(96)]
    assert np.abs(_mask(given) - np.array(smooth)).max() < 8
    assert np.abs(_mask(given, mask_blur_y=0) - np.array(smooth)).max() < 8
    assert (_mask(given, mask_blur=0) == given).all()
    assert (_mask(given, mask_blur_x=0) == given).all()
    assert (_mask(given, mask_blur=0, inpainting_mask_invert=1) == 255 - given).all()


@pytest.mark.parametrize("blur", [-1, 257, float("nan"), 10**400])
def test_a_blur_out_of_range_is_refused(blur: float) -> None:
    with pytest.raises(InvalidRequest, match="must be 0 to 256"):
        _mask(np.zeros((8, 8), np.uint8), mask_blur=blur)


def _mask(given: np.ndarray[Any, Any], **body: Any) -> np.ndarray[Any, Any]:
    mask = base64.b64encode(encoded(Image.fromarray(given))).decode()
    return np.asarray(mask_of(ImageToImage(**body), mask, 10**6)).astype(float)


def test_another_checkpoint_is_not_loaded_and_that_is_said() -> None:
    settings = {"sd_model_checkpoint": "v1-5-pruned.safetensors [abc]"}
    assert "this server has only owner/name" in wanted(override_settings=settings)[1][0]
    settings = {"sd_model_checkpoint": "Owner/Name [abc]"}
    assert wanted(override_settings=settings)[1] == []


PARAMS = SamplingParams(
    prompt='a "cat",\n\n  two lines ',
    negative_prompt="b: c,\nd",
    width=96,
    height=64,
    num_inference_steps=7,
    guidance_scale=7,
    seed=2**62,
    scheduler="flow_euler",
    flow_shift=3.0,
    max_sequence_length=16,
    lora=(LoraChoice("style", 0.5), LoraChoice("other", 1)),
)


def test_parameters_survive_the_way_through_their_text() -> None:
    text = write(PARAMS, "some/model, v2", "1.0")
    params, _ = to_sampling_params(with_infotext(TextToImage(infotext=text)), MODEL)
    assert repr(params) == repr(PARAMS)  # 7 and 7.0 are equal, but not in a file


def test_text_of_the_web_ui_itself_is_read() -> None:
    said = parse_infotext(
        "masterpiece, (cat:1.2)\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, "
        'Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model: x, Lora hashes: "a: b"'
    )
    wanted = {"Prompt": "masterpiece, (cat:1.2)", "Negative prompt": "blurry", "Size-2": "768"}
    assert wanted.items() <= said.items()
    assert (said["Schedule type"], said["Lora hashes"]) == ("Karras", "a: b")


def test_crafted_text_is_read_in_no_time_and_can_be_sent_on() -> None:
    for line in ('Steps: 1, Seed: 2, Sampler: "\\ud800"', "a" * 10**6, 'a:"\\"' * 10**5):
        assert repr(parse_infotext(f"a\n{line}")).isprintable()
        str(parse_infotext(line)).encode()


def test_the_operators_loras_are_listed(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").touch()
    app = app_with(ends=QueueFull(""), lora_dir=str(tmp_path))
    (lora,) = ask(app, "GET", "/sdapi/v1/loras").json()
    assert (lora["name"], lora["path"]) == ("style", "style")
