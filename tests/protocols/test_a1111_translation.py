"""What bodies of A1111's clients ask for, in the server's own words."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
import torch
import webuiapi
from http_serving import MODEL, app_with, ask
from openai_client import encoded
from PIL import Image
from safetensors.torch import save_file
from told import texts

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.configs.solvers import NOISE_SCHEDULES, View
from multimodal_gen.entrypoints.http.a1111.input_images.geometry import masked_region, resized
from multimodal_gen.entrypoints.http.a1111.input_images.masks import filled, mask_of
from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage, TextToImage
from multimodal_gen.entrypoints.http.a1111.translation import (
    fitting,
    to_sampling_params,
    with_infotext,
)
from multimodal_gen.entrypoints.http.media.solvers import solver_named
from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.messages.model_info import Limits, ModelInfo
from multimodal_gen.postprocess.infotext import parse_infotext, write
from multimodal_gen.postprocess.metadata import Recipe

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


NOISE_MODEL = msgspec.structs.replace(
    MODEL, schedulers=("pndm", *NOISE, "lcm"), noise_schedules=NOISE_SCHEDULES[View.NOISE]
)
FLOW_MODEL = msgspec.structs.replace(
    MODEL, schedulers=FLOW, noise_schedules=NOISE_SCHEDULES[View.FLOW]
)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "solver", "schedule"),
    [
        ("DPM++ 2M Karras", None, "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE Exponential", "Automatic", "dpmpp_2m_sde", "exponential"),
        ("k_dpmpp_2m_ka", None, "dpmpp_2m", "karras"),
        ("DPM++ 2M SGM Uniform", None, "dpmpp_2m", "sgm_uniform"),
        ("Euler A SGMUniform", None, "euler_a", "sgm_uniform"),
        ("DPM++ 2M Karras", "Beta", "dpmpp_2m", "beta"),
        ("DPM++ 2M", "karras", "dpmpp_2m", "karras"),
        ("Euler", "DDIM", "euler", "ddim_uniform"),
        ("Euler", "Polyexponential", "euler", "exponential"),
        ("Euler", "Simple", "euler", "simple"),
        ("Euler", "Normal", "euler", None),
        ("Euler", "Uniform", "euler", None),
        ("Automatic", "karras", None, None),
        (None, None, None, None),
    ],
)
def test_a_sampler_and_its_schedule_are_the_ones_that_the_web_ui_means(
    sampler: str | None, scheduler: str | None, solver: str | None, schedule: str | None
) -> None:
    params, warnings = wanted(NOISE_MODEL, sampler_name=sampler, scheduler=scheduler)
    assert (params.scheduler, params.noise_schedule) == (solver, schedule)
    # PLMS, the model's own, has no Karras schedule
    assert texts(warnings) == (
        ["scheduler='karras': PLMS uses its own schedule instead"] if sampler == "Automatic" else []
    )


@pytest.mark.parametrize(
    ("model", "sampler", "scheduler", "used", "warning"),
    [
        (NOISE_MODEL, "DPM++ 2M SDE Heun Karras", "", ("dpmpp_2m_sde", "karras"), "DPM++ 2M SDE"),
        (NOISE_MODEL, "DPM++ 3M SDE Karras", "", ("dpmpp_2m_sde", "karras"), "DPM++ 2M SDE"),
        (NOISE_MODEL, "DPM adaptive", "", ("dpmpp_2m", None), "DPM++ 2M"),
        (NOISE_MODEL, "Euler CFG++", "", ("euler", None), "Euler"),
        (NOISE_MODEL, "something new", "", ("pndm", None), "PLMS"),
        (NOISE_MODEL, "LCM", "karras", ("lcm", None), "LCM uses its own schedule"),
        (NOISE_MODEL, "Euler", "align_your_steps", ("euler", None), "Euler uses its own schedule"),
        (FLOW_MODEL, "Euler a", "", ("flow_euler", None), "Euler"),
        (FLOW_MODEL, "DPM++ 2M Karras", "", ("unipc", "karras"), "UniPC"),
        (FLOW_MODEL, "Heun", "karras", ("flow_heun", None), "Heun uses its own schedule"),
    ],
)
def test_what_a_model_lacks_is_replaced_by_the_nearest_and_that_is_said(
    model: ModelInfo, sampler: str, scheduler: str, used: tuple[str, str | None], warning: str
) -> None:
    params, warnings = wanted(model, sampler_name=sampler, scheduler=scheduler)
    assert (params.scheduler, params.noise_schedule) == used
    (said,) = texts(warnings)
    assert f": this model uses {warning} instead" in said or warning in said


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
    assert params.lora == (LoraChoice("style", 0.8), LoraChoice("other"), LoraChoice("third", 0.5))


@pytest.mark.parametrize(
    ("tag", "scale", "warning"),
    [
        ("<lora:a:1.0:0.5>", 0.5, "the text encoder's scale is 0.5 as well"),
        ("<lora:a:0.5:0.5>", 0.5, None),
        ("<lyco:a:0.5>", 0.5, None),
        ("<lora:a:te=1:unet=0.5>", 0.5, "the text encoder's scale is 0.5 as well"),
        ("<lora:a:0.5:unet=1>", 1, "the text encoder's scale is 1 as well"),
        ("<lora:a:1:1:64>", 1, "its third number has no effect"),
        ("<lora:a:1:lbw=IN>", 1, "lbw has no effect"),
    ],
)
def test_a_loras_scale_is_the_models_and_what_else_is_said_of_it_is_named(
    tag: str, scale: float, warning: str | None
) -> None:
    params, warnings = wanted(prompt=f"a cat {tag}")
    assert (params.prompt, params.lora) == ("a cat", (LoraChoice("a", scale),))
    if warning is None:
        assert warnings == []
    else:
        assert warning in texts(warnings)[0]


def test_the_target_of_a_lora_survives_the_text_of_a_file() -> None:
    loras = (LoraChoice("a", 0.5, "transformer_2"), LoraChoice("a", 1.0, "transformer"))
    text = write(SamplingParams(prompt="a cat", lora=loras, seed=1), "model", "1")
    assert "<lora:a:0.5:target=transformer_2>" in text
    params, warnings = wanted(prompt=parse_infotext(text)["Prompt"])
    assert (params.prompt, params.lora, warnings) == ("a cat", loras, [])


def test_a_prompt_can_leave_its_loras_out() -> None:
    params, _ = wanted(prompt="a cat <lora:a:1>", disable_extra_networks=True)
    assert (params.prompt, params.lora) == ("a cat", ())


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("a (cat:1.3), red", "(cat:1.3)"),
        ("a ((red) cat)", "(red)"),
        ("[day:night:0.5]", "[day:night:0.5]"),
        ("a cat AND a dog", "AND"),
        ("a cat BREAK a dog", "BREAK"),
        (r"a \(cat\)", None),
        ("a cat and a dog", None),
    ],
)
def test_weights_in_a_prompt_are_said_to_be_text(prompt: str, part: str | None) -> None:
    params, warnings = wanted(prompt=prompt)
    assert params.prompt == prompt
    _, negative = wanted(negative_prompt=prompt)
    if part is None:
        assert (warnings, negative) == ([], [])
    else:
        said = f"{part} is read as text: weights have no effect on this server"
        assert texts(warnings) == [f"prompt: {said}"]
        assert texts(negative) == [f"negative_prompt: {said}"]


@pytest.mark.parametrize("part", ["[day:night:0.5]", "[cow|horse]", "AND"])
def test_a_model_that_reads_weights_says_which_parts_it_does_not(part: str) -> None:
    model = msgspec.structs.replace(MODEL, parameters=("prompt_syntax",))
    params, warnings = wanted(model, prompt=f"(a:1.2) {part} [b]", negative_prompt="(c)")
    assert params.prompt_syntax == "a1111"
    said = "is read as text: prompts don't change or combine on this server"
    assert texts(warnings) == [f"prompt: {part} {said}"]


def _sent_by_webuiapi(call: Callable[[webuiapi.WebUIApi], Any]) -> dict[str, Any]:
    client, sent = webuiapi.WebUIApi(), []

    class Session:
        auth = None

        def post(self, url: str, json: dict[str, Any]) -> NoReturn:
            sent.append(json)
            raise ConnectionError

    client.session = Session()
    with pytest.raises(ConnectionError):
        call(client)
    return sent[0]


IMAGE = Image.new("RGB", (16, 16))
SENT: dict[str, tuple[type[Generation], dict[str, Any]]] = {
    "text": (
        TextToImage,
        _sent_by_webuiapi(lambda client: client.txt2img(alwayson_scripts={})),
    ),
    "image": (
        ImageToImage,
        _sent_by_webuiapi(
            lambda client: client.img2img([IMAGE], mask_image=IMAGE, alwayson_scripts={})
        ),
    ),
}
"""Bodies with all keys of the web UI, at their defaults."""
PAINTS = msgspec.structs.replace(
    MODEL,
    tasks=("text-to-image", "image-to-image", "inpainting"),
    schedulers=("euler_a", "ddim", "euler"),
    limits=Limits(max_pixels=512 * 512, max_side=1024),
)


@pytest.mark.parametrize("kind", SENT)
def test_a_body_of_neutral_values_has_no_warnings(kind: str) -> None:
    body, sent = SENT[kind]
    sent = {**sent, "sampler_name": None, "sampler_index": None, "eta": None}
    off = {
        "ADetailer": {"args": [False]},
        "ControlNet": {"args": []},
        "controlnet": {"args": [{"enabled": False, "image": "x"}]},
        "animatediff": {"args": {}},
    }
    settings = {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": None}
    more = {"alwayson_scripts": off, "override_settings": settings, "clip_skip": 1}
    assert to_sampling_params(body(**{**sent, **more}), PAINTS)[1] == []


UPSCALES = msgspec.structs.replace(PAINTS, parameters=(*PAINTS.parameters, "upscale"))


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, UpscaleChoice(2, 0.75)),
        ({"hr_scale": 1.5, "denoising_strength": 0.4}, UpscaleChoice(1.5, 0.4)),
        ({"hr_second_pass_steps": 9, "hr_upscaler": "Lanczos"}, UpscaleChoice(2, 0.75, 9)),
        ({"hr_resize_x": 96, "hr_resize_y": 0, "hr_scale": 4}, UpscaleChoice(1.5, 0.75)),
        ({"hr_sampler_name": "Use same sampler", "hr_prompt": ""}, UpscaleChoice(2, 0.75)),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, dict) else "",
)
def test_hires_fix_is_a_second_pass(given: dict[str, Any], choice: UpscaleChoice) -> None:
    body = TextToImage(enable_hr=True, width=64, height=64, **given)
    params, warnings = to_sampling_params(body, UPSCALES)
    assert (params.upscale, warnings) == (choice, [])
    off = TextToImage(enable_hr=False, width=64, height=64, **given)
    assert to_sampling_params(off, UPSCALES)[0].upscale is None


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, UpscaleChoice(2, 0.75, None, "4x-tiny")),
        ({"denoising_strength": 0, "hr_second_pass_steps": 9}, UpscaleChoice(2, model="4x-tiny")),
        ({"hr_upscaler": "Lanczos"}, UpscaleChoice(2, 0.75)),
    ],
)
def test_hires_fix_by_a_model(given: dict[str, Any], choice: UpscaleChoice) -> None:
    model = msgspec.structs.replace(UPSCALES, upscale_ways=("second-pass", "model"))
    sent = {"enable_hr": True, "width": 64, "height": 64, "hr_upscaler": "4x-tiny", **given}
    params, warnings = to_sampling_params(TextToImage(**sent), model)
    assert (params.upscale, warnings) == (choice, [])


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"hr_upscaler": "Latent"}, "hr_upscaler='Latent': Lanczos is used instead"),
        ({"hr_prompt": "a dog"}, "hr_prompt has no effect on this server"),
        ({"hr_resize_x": 96, "hr_resize_y": 64}, "has the shape of the first pass"),
    ],
)
def test_what_hires_fix_does_otherwise_is_told(given: dict[str, Any], warning: str) -> None:
    body = TextToImage(enable_hr=True, width=64, height=64, **given)
    (said,) = texts(to_sampling_params(body, UPSCALES)[1])
    assert warning in said


def test_hires_fix_of_a_model_that_starts_from_no_images_is_told() -> None:
    params, (warning,) = to_sampling_params(TextToImage(enable_hr=True), PAINTS)
    assert params.upscale is None
    assert warning.text == "enable_hr has no effect: this model starts from no images"


def test_hires_fix_is_in_the_infotext_both_ways() -> None:
    made = SamplingParams(prompt="a", seed=1, width=64, height=64, num_inference_steps=4)
    made = replace(made, upscale=UpscaleChoice(1.5, 0.4, 9))
    text = Recipe(made, "m").infotext()
    assert "Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 9, " in text
    body = with_infotext(TextToImage(infotext=text))
    assert to_sampling_params(body, UPSCALES)[0].upscale == made.upscale


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"clip_skip": 2}, "clip_skip has no effect on this server"),
        ({"restore_faces": True}, "restore_faces has no effect"),
        ({"tiling": True}, "tiling has no effect"),
        ({"styles": ["ink"]}, "styles has no effect"),
        ({"script_name": "X/Y/Z plot"}, "script_name has no effect"),
        ({"subseed_strength": 0.3}, "subseed_strength has no effect"),
        ({"seed_resize_from_w": 512}, "seed_resize_from_w has no effect"),
        ({"refiner_checkpoint": "sdxl_refiner"}, "refiner_checkpoint has no effect"),
        ({"s_churn": 1.0}, "s_churn has no effect"),
        ({"s_tmin": 0.1}, "s_tmin has no effect"),
        ({"s_tmax": 5}, "s_tmax has no effect"),
        ({"s_noise": 1.1}, "s_noise has no effect"),
        ({"s_noise": 0}, "s_noise has no effect"),
        ({"s_min_uncond": 1}, "s_min_uncond has no effect"),
        ({"save_images": True}, "save_images has no effect"),
        ({"force_task_id": "x"}, "force_task_id has no effect"),
        ({"firstphase_width": 512}, "firstphase_width has no effect"),
        ({"initial_noise_multiplier": 0}, "initial_noise_multiplier has no effect"),
        ({"initial_noise_multiplier": 1.1}, "initial_noise_multiplier has no effect"),
        ({"latent_mask": "AAAA"}, "latent_mask has no effect"),
        ({"inpainting_fill": 2}, "inpainting_fill=2: the image is used (1)"),
        ({"resize_mode": 3}, "resize_mode=3: images are stretched (0)"),
        ({"mask_round": False}, "mask_round has no effect"),
        (
            {"infotext": "a\nSteps: 2, Seed: 3, Size: 64x64, Clip skip: 2, RNG: CPU, VAE hash: 0a"},
            "infotext: Clip skip has no effect on this server",
        ),
        ({"new_in_a_fork": 3}, "new_in_a_fork is unknown and was ignored"),
        ({"sampler_name": "DDIM", "eta": 1}, "eta has no effect on this server: ddim has 0"),
        ({"sampler_name": "Euler a", "eta": 0}, "eta has no effect on this server: euler_a has 1"),
        ({"override_settings": {"enable_pnginfo": False}}, "enable_pnginfo has no effect"),
        ({"override_settings": {"eta_ancestral": 0}}, "eta_ancestral has no effect"),
        ({"override_settings": {"sd_vae": "a"}}, "override_settings: sd_vae has no effect"),
        ({"override_settings": {"eta_noise_seed_delta": 31337}}, "eta_noise_seed_delta has no"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 2}},
            "override_settings: CLIP_stop_at_last_layers has no effect on this server",
        ),
        (
            {"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "face_yolov8n.pt"}]}}},
            "alwayson_scripts: ADetailer has no effect on this server",
        ),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}},
            "alwayson_scripts: ControlNet has no effect on this server",
        ),
    ],
)
def test_what_has_no_effect_is_named(change: dict[str, Any], warning: str) -> None:
    body, sent = SENT["image"]
    neutral = {"sampler_name": None, "sampler_index": None, "eta": None}
    (said,) = texts(to_sampling_params(body(**{**sent, **neutral, **change}), PAINTS)[1])
    assert said.startswith(warning) or warning in said


def test_eta_is_silent_where_the_web_ui_does_not_use_it_either() -> None:
    for name, eta in (("Euler", 0.7), ("DDIM", 0), ("Euler a", 1.0)):
        assert wanted(PAINTS, sampler_name=name, eta=eta)[1] == []


def test_crafted_keys_are_shortened_and_their_values_are_not_repeated() -> None:
    body = TextToImage(**{"k" * 1000: "secret", **{f"k{i}": 1 for i in range(100)}})
    _, warnings = to_sampling_params(body, MODEL)
    assert len(warnings) == 40
    assert texts(warnings)[-1] == "and 62 more"
    assert max(map(len, texts(warnings))) < 120
    assert "secret" not in str(warnings) + str(body.echo())
    "\n".join(texts(warnings)).encode()


def test_a_small_region_is_widened_to_the_shape_of_the_request() -> None:
    mask = Image.new("L", (100, 80))
    assert masked_region(mask, 4, (64, 64)) == (0, 0, 100, 80)
    mask.paste(255, (90, 30, 100, 50))
    assert masked_region(mask, 0, None) == (90, 30, 100, 50)
    assert masked_region(mask, 4, None) == (86, 26, 100, 54)
    assert masked_region(mask, 0, (64, 64)) == (80, 30, 100, 50)
    assert masked_region(mask, 0, (32, 64)) == (90, 30, 100, 50)
    assert masked_region(mask, 10**9, (64, 64)) == (0, 0, 100, 80)


def test_an_image_of_another_shape_is_stretched_cropped_or_extended() -> None:
    bars = np.zeros((10, 30, 3), np.uint8)
    bars[:, 10:20] = 255
    image = Image.fromarray(bars)
    made = [np.asarray(resized(image, (30, 30), mode)) for mode in (0, 1, 2)]
    stretched, cropped, extended = made
    assert [each.shape for each in made] == [(30, 30, 3)] * 3
    assert stretched[:, 15].min() == 255
    assert cropped.min() > 150
    assert (extended == np.repeat(bars[:1], 30, 0)).all()


def test_what_is_repainted_is_filled_with_colors_from_around_it() -> None:
    image, mask = Image.new("RGB", (64, 64), (200, 40, 40)), Image.new("L", (64, 64))
    image.paste((0, 0, 255), (24, 24, 40, 40))
    mask.paste(255, (20, 20, 44, 44))
    made = np.asarray(filled(image, mask)).astype(int)
    assert np.abs(made - (200, 40, 40)).max() < 12
    assert (made[:20] == (200, 40, 40)).all()


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
    assert "denoising_strength" in texts(warnings)[0]


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
    assert "this server has only owner/name" in wanted(override_settings=settings)[1][0].text
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
    noise_schedule="karras",
    flow_shift=3.0,
    max_sequence_length=16,
    lora=(LoraChoice("style", 0.5), LoraChoice("other", 1)),
)


def test_parameters_survive_the_way_through_their_text() -> None:
    text = write(PARAMS, "some/model, v2", "1.0")
    params, _ = to_sampling_params(with_infotext(TextToImage(infotext=text)), FLOW_MODEL)
    assert repr(params) == repr(PARAMS)  # 7 and 7.0 are equal, but not in a file


@pytest.mark.parametrize(("share", "skipped"), [(0, 0), (0.29, 30), (0.1, 11), (0.104, 11)])
def test_steps_before_guidance_are_those_of_the_web_ui(share: float, skipped: int) -> None:
    guided = msgspec.structs.replace(MODEL, parameters=("guidance_start",))
    settings = {"skip_early_cond": share}
    params, warnings = wanted(guided, steps=100, override_settings=settings)
    assert (int(params.guidance_start * 100), warnings) == (skipped, [])
    text = write(replace(params, num_inference_steps=100, seed=1, width=8, height=8), "m", "1.0")
    again, _ = to_sampling_params(with_infotext(TextToImage(infotext=text)), guided)
    assert int(again.guidance_start * 100) == skipped


def test_steps_before_guidance_need_guidance() -> None:
    params, warnings = wanted(override_settings={"skip_early_cond": 0.2})
    assert params.guidance_start == 0
    assert texts(warnings) == ["skip_early_cond has no effect: this model has no guidance"]
    with pytest.raises(InvalidRequest, match="skip_early_cond='a': must be a number from 0 to 1"):
        wanted(override_settings={"skip_early_cond": "a"})


def test_a_quality_is_taken_where_the_model_has_it_also_from_a_text() -> None:
    fast = msgspec.structs.replace(FLOW_MODEL, qualities=("exact", "high", "fast"))
    text = write(replace(PARAMS, quality="fast"), "m", "1.0")
    bodies = TextToImage(quality="fast"), with_infotext(TextToImage(infotext=text))
    for body in bodies:
        assert to_sampling_params(body, fast)[0].quality == "fast"
        params, warnings = to_sampling_params(body, FLOW_MODEL)
        assert params.quality == "exact"
        assert "quality=fast has no effect: this model allows exact" in texts(warnings)


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
    assert lora["metadata"] == {}


def test_a_lora_is_listed_with_what_its_file_says(tmp_path: Path) -> None:
    metadata = {
        "modelspec.title": "Qwen-Image-Lightning-4steps",
        "modelspec.trigger_phrase": "in ink",
        "modelspec.thumbnail": "data:image/png;base64,AAAA",
    }
    save_file({"x": torch.zeros(1)}, tmp_path / "fast.safetensors", metadata)
    app = app_with(ends=QueueFull(""), lora_dir=str(tmp_path))
    (lora,) = ask(app, "GET", "/sdapi/v1/loras").json()
    assert lora["alias"] == "Qwen-Image-Lightning-4steps"
    hint = "num_inference_steps=4, true_cfg_scale=1.0, flow_shift=3.0"
    assert lora["metadata"] == {**metadata, "modelspec.usage_hint": hint}
    info = ask(app, "GET", "/model_info").json()
    assert info["loras"] == ["fast"]
    assert info["about_loras"]["fast"]["trigger_words"] == ["in ink"]
