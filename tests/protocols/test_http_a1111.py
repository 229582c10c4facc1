"""The unmodified webuiapi package against a real engine."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
import webuiapi
from engines import submit_to
from http_serving import app_with, app_without_engine, ask, eventually, serving
from openai_client import decoded, encoded
from PIL import Image
from tiny_checkpoints.pictures import picture
from told import texts

from multimodal_gen.errors import QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters

QUICK: dict[str, Any] = {"steps": 2, "width": 96, "height": 64}
LONG: dict[str, Any] = {"steps": 1000, "width": 128, "height": 128}
"""Of a job that is still under way when a test looks at it."""
SMALL = "height=64: bundled_model draws 96x96 to 128x128 pixels"


@pytest.fixture(scope="module")
def webui(url: str) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{url}/sdapi/v1")


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Begin a call; what is returned waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()

    def wait() -> Any:
        thread.join(120)
        return results[0]

    return wait


def post(url: str, path: str, body: object) -> httpx2.Response:
    return httpx2.post(f"{url}/sdapi/v1/{path}", json=body, timeout=120)


def base64_of(image: Image.Image) -> str:
    return base64.b64encode(encoded(image)).decode()


def test_a_picture_is_the_same_as_by_every_other_way_in(
    webui: webuiapi.WebUIApi, engine: EngineProcess
) -> None:
    result = webui.txt2img(
        prompt="a red heart", seed=7, cfg_scale=2.5, sampler_name="Heun", **QUICK
    )
    direct = submit_to(
        engine,
        seed=7,
        width=96,
        height=64,
        num_inference_steps=2,
        true_cfg_scale=2.5,
        scheduler="flow_heun",
    ).result(60)
    assert np.abs(np.asarray(result.image).astype(int) - direct.pixels[0]).max() <= 1
    wanted = {"seed": 7, "width": 96, "height": 64, "steps": 2, "sampler_name": "Heun"}
    assert wanted.items() <= result.info.items()
    assert texts(result.info["warnings"]) == [SMALL]
    assert result.parameters["prompt"] == "a red heart"


def test_batches_times_iterations_have_seeds_in_a_row(webui: webuiapi.WebUIApi) -> None:
    result = webui.txt2img(prompt="a red heart", seed=5, batch_size=2, n_iter=2, **QUICK)
    assert result.info["all_seeds"] == [5, 6, 7, 8]
    assert len({image.tobytes() for image in result.images}) == 4
    assert len(result.info["infotexts"]) == 4


def test_a_negative_seed_is_any_seed(webui: webuiapi.WebUIApi) -> None:
    seeds = {webui.txt2img(seed=-1, **QUICK).info["seed"] for _ in range(2)}
    assert len(seeds) == 2
    assert min(seeds) >= 0


def test_what_a_model_has_not_is_replaced_and_said(webui: webuiapi.WebUIApi) -> None:
    made = webui.txt2img(
        steps=2,
        width=100,
        height=70,
        sampler_name="Euler a",
        scheduler="kl_optimal",
        tiling=True,
    )
    assert made.image.size == (96, 64)
    warnings = "\n".join(texts(made.info["warnings"]))
    assert "size=100x70: this model generates 96x64 instead" in warnings
    assert "sampler_name='Euler a': this model uses Euler instead" in warnings
    assert "scheduler='kl_optimal': Euler uses its own schedule instead" in warnings
    assert "tiling has no effect on this server" in warnings


def test_hires_fix_makes_a_larger_picture(webui: webuiapi.WebUIApi) -> None:
    given = {
        "enable_hr": True,
        "hr_scale": 1.5,
        "hr_second_pass_steps": 4,
        "hr_upscaler": "Lanczos",
    }
    made = webui.txt2img(steps=2, width=64, height=64, denoising_strength=0.5, **given)
    assert made.image.size == (96, 96)
    assert made.info["denoising_strength"] == 0.5
    assert not any("hr_" in warning for warning in texts(made.info["warnings"]))


def test_a_picture_is_changed_by_its_denoising_strength(webui: webuiapi.WebUIApi) -> None:
    start = picture(96, 64)
    little, much = (
        webui.img2img(
            images=[start],
            prompt="a red heart",
            seed=1,
            denoising_strength=strength,
            **{**QUICK, "steps": 10},
        )
        for strength in (0.1, 0.9)
    )
    assert little.info["denoising_strength"] == 0.1
    assert _difference(little.image, start) < _difference(much.image, start)


def _difference(made: Image.Image, start: Image.Image) -> float:
    return float(np.abs(np.asarray(made).astype(int) - np.asarray(start)).mean())


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("inverted", [0, 1])
def test_outside_the_blurred_mask_the_image_is_left_as_it_is(
    url: str, inverted: int, only_masked: bool
) -> None:
    start = np.asarray(picture(96, 64))
    right = np.zeros((64, 96), np.uint8)
    right[:, 48:] = 255
    body = {
        "init_images": [base64_of(Image.fromarray(start))],
        "mask": base64_of(Image.fromarray(right)),
        "inpainting_mask_invert": inverted,
        "inpaint_full_res": only_masked,
        "mask_blur": 2,
        "prompt": "a red heart on a white background",
        "seed": 1,
        "denoising_strength": 1.0,
        **QUICK,
        "steps": 8,
    }
    reply = post(url, "img2img", body).json()
    made = decoded(base64.b64decode(reply["images"][0])).astype(int)
    changes = np.abs(made - start).mean(axis=(0, 2))
    if inverted:
        changes = changes[::-1]
    assert changes[:40].max() == 0
    assert changes[56:].mean() > 20
    assert 0 < changes[44:48].mean() < changes[56:].mean()  # the soft edge


def test_only_the_masked_region_is_generated_at_the_size_of_the_request(url: str) -> None:
    start = np.asarray(picture(200, 150))
    spot = np.zeros((150, 200), np.uint8)
    spot[60:80, 100:120] = 255
    body = {
        "init_images": [base64_of(Image.fromarray(start))],
        "mask": base64_of(Image.fromarray(spot)),
        "inpaint_full_res_padding": 8,
        "seed": 1,
        "denoising_strength": 1.0,
        "override_settings": {"samples_format": "webp"},
        **QUICK,
    }
    reply = post(url, "img2img", body).json()
    file = base64.b64decode(reply["images"][0])
    assert Image.open(io.BytesIO(file)).format == "WEBP"
    made = decoded(file).astype(int)
    assert made.shape == start.shape
    assert np.abs(made - start)[60:80, 100:120].mean() > 10
    assert read_parameters(file).params.width == 96
    body["override_settings"] = {}
    made = decoded(base64.b64decode(post(url, "img2img", body).json()["images"][0])).astype(int)
    spot[48:92, 88:132] = 255  # with the soft edge
    assert (made == start)[spot == 0].all()


def test_a_mask_with_transparency_paints_what_is_opaque(url: str) -> None:
    opaque = np.zeros((64, 96, 4), np.uint8)
    opaque[:, 48:, 3] = 255
    white = np.full((64, 96), 0, np.uint8)
    white[:, 48:] = 255
    body = {"init_images": [base64_of(picture(96, 64))], "seed": 1, "steps": 2}
    replies = [
        post(url, "img2img", {**body, "mask": base64_of(Image.fromarray(mask))}).json()
        for mask in (opaque, white)
    ]
    assert replies[0]["images"] == replies[1]["images"]


def test_progress_goes_one_way_and_shows_the_picture(webui: webuiapi.WebUIApi) -> None:
    wait = in_thread(lambda: webui.txt2img(prompt="a red heart", **LONG))
    seen: list[dict[str, Any]] = []
    shown: list[str] = []

    def two_pictures_were_shown() -> bool:
        now = webui.get_progress()
        if now["state"]["job_count"]:
            seen.append(now)
        if now["current_image"]:
            shown.append(now["current_image"])
        return len(set(shown)) == 2

    assert eventually(two_pictures_were_shown, 120)
    webui.interrupt()
    result = wait()
    fractions = [each["progress"] for each in seen]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] < 1
    assert any(each["eta_relative"] > 0 for each in seen)
    assert {each["state"]["job_count"] for each in seen} == {1}
    assert seen[-1]["state"]["sampling_steps"] == 1000
    assert decoded(base64.b64decode(shown[-1])).shape[2] == 3
    assert result.image.size == (128, 128)
    assert webui.get_progress()["progress"] == 0


def test_progress_leaves_out_the_picture_when_asked(url: str) -> None:
    wait = in_thread(lambda: post(url, "txt2img", LONG))
    path = f"{url}/sdapi/v1/progress"

    def shown() -> Any:
        return httpx2.get(path).json()["current_image"]

    assert eventually(lambda: shown() is not None, 60)
    reply = httpx2.get(path, params={"skip_current_image": True}).json()
    assert (reply["state"]["job_count"], reply["current_image"]) == (1, None)
    post(url, "interrupt", {})
    wait()


@pytest.mark.parametrize("how", ["interrupt", "skip"])
def test_a_job_that_is_interrupted_answers_with_what_there_is(
    webui: webuiapi.WebUIApi, how: str
) -> None:
    wait = in_thread(lambda: webui.txt2img(prompt="a red heart", **LONG))
    assert eventually(lambda: webui.get_progress()["current_image"] is not None, 60)
    assert getattr(webui, how)() == ({} if how == "interrupt" else None)
    result = wait()
    assert result.info["interrupted"]
    assert [image.size for image in result.images] == [(128, 128)]
    assert "parameters" not in result.image.info  # as in one that was finished


def test_interrupting_when_nothing_runs_does_nothing(webui: webuiapi.WebUIApi) -> None:
    assert webui.interrupt() == {}
    assert webui.skip() is None


def test_what_clients_ask_first_is_there(webui: webuiapi.WebUIApi, engine: EngineProcess) -> None:
    model = engine.wait_ready(90).name
    assert webui.get_options()["sd_model_checkpoint"] == model
    assert webui.util_get_model_names() == [model]
    assert {"Euler", "Heun", "UniPC"} <= set(webui.util_get_sampler_names())
    schedules = {"automatic", "normal", "karras", "exponential", "beta", "simple", "sgm_uniform"}
    assert schedules <= set(webui.util_get_scheduler_names())
    assert webui.get_scripts() == {"txt2img": [], "img2img": []}
    assert webui.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert webui.get_upscalers()[0]["name"] == "None"
    assert webui.get_memory()["ram"]["total"] > 0
    assert webui.get_cmd_flags()["api"]
    assert webui.refresh_checkpoints() is None
    for empty in (
        webui.get_sd_vae,
        webui.get_loras,
        webui.get_hypernetworks,
        webui.get_face_restorers,
        webui.get_realesrgan_models,
        webui.get_prompt_styles,
        webui.get_latent_upscale_modes,
    ):
        assert empty() == []


NOT_SERVED = {
    "interrogate": ([picture(8, 8)], "no captioning model"),
    "controlnet_version": ([], "extension"),
    "controlnet_detect": ([[picture(8, 8)]], "extension"),
    "list_prompt_gen_models": ([], "extension"),
    "prompt_gen": ([], "extension"),
    "get_artists": ([], "removed from the web UI"),
    "get_artist_categories": ([], "removed from the web UI"),
}
"""Methods of webuiapi, with arguments and the reason why they fail."""
NO_REQUESTS = {"set_auth", "check_extensions", "get_endpoint", "post_and_get_api_result"} | {
    "async_post",
    "custom_get",
    "custom_post",
}


def test_every_method_of_webuiapi_is_served_or_known_not_to_be(
    webui: webuiapi.WebUIApi,
) -> None:
    own = webui.get_options()["sd_model_checkpoint"]
    arguments: dict[str, dict[str, Any]] = {
        "txt2img": QUICK,
        "img2img": {"images": [picture(96, 64)], **QUICK},
        "extra_single_image": {"image": picture(8, 8)},
        "extra_batch_images": {"images": [picture(8, 8)]},
        "png_info": {"image": picture(8, 8)},
        "set_options": {"options": {}},
        "util_set_model": {"name": own},
    }
    methods = {name for name in dir(webui) if callable(getattr(webui, name)) and name[0] != "_"}
    for name in sorted(methods - NO_REQUESTS - NOT_SERVED.keys()):
        answer = getattr(webui, name)(**arguments.get(name, {}))
        assert not isinstance(answer, dict) or "error" not in answer, name
    for name, (given, _) in NOT_SERVED.items():
        try:
            answer = getattr(webui, name)(*given)
        except (RuntimeError, KeyError):
            continue
        assert "error" in answer, name


def test_sillytaverns_calls_are_answered(url: str) -> None:
    """As its src/endpoints/stable-diffusion.js sends them."""
    api = f"{url}/sdapi/v1"
    names = {
        path: [each["name"] for each in httpx2.get(f"{api}/{path}").json()]
        for path in ("upscalers", "latent-upscale-modes", "samplers", "schedulers")
    }
    assert [each["model_name"] for each in httpx2.get(f"{api}/sd-vae").json()] == []
    (model,) = (each["title"] for each in httpx2.get(f"{api}/sd-models").json())
    options = httpx2.get(f"{api}/options").json()
    assert options["sd_model_checkpoint"] == model
    assert "forge_preset" not in options
    assert post(url, "options", {"sd_model_checkpoint": model}).status_code == 200
    progress = httpx2.get(f"{api}/progress").json()
    assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)
    body = {
        "url": url,
        "auth": "user:password",
        "prompt": "a red heart",
        "negative_prompt": "",
        "sampler_name": names["samplers"][0],
        "scheduler": names["schedulers"][1],
        "cfg_scale": 7,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": names["upscalers"][1],
        "hr_scale": 2,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
        **QUICK,
    }
    reply = post(url, "txt2img", body)
    assert decoded(base64.b64decode(reply.json()["images"][0])).shape == (64, 96, 3)
    assert "password" not in reply.text
    assert texts(json.loads(reply.json()["info"])["warnings"]) == [
        "url is unknown and was ignored",
        "auth is unknown and was ignored",
        "save_images has no effect on this server",
        SMALL,
    ]
    face = {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}}
    reply = post(url, "txt2img", {**QUICK, "alwayson_scripts": face})
    assert "ADetailer has no effect" in reply.json()["info"]


def test_options_are_taken_and_another_model_is_refused(webui: webuiapi.WebUIApi) -> None:
    own = webui.get_options()["sd_model_checkpoint"]
    assert webui.set_options({"sd_model_checkpoint": own, "samples_save": False}) is None
    refusal = webui.set_options({"sd_model_checkpoint": "v1-5-pruned.ckpt"})
    assert f"must be '{own}'" in refusal["detail"]


def test_options_without_effect_are_named_in_a_header(url: str) -> None:
    own = httpx2.get(f"{url}/sdapi/v1/options").json()
    for options, named in (
        (own, None),
        (
            {**own, "CLIP_stop_at_last_layers": 2, "enable_pnginfo": False},
            "CLIP_stop_at_last_layers has no effect on this server; "
            "enable_pnginfo has no effect on this server",
        ),
        ({"": 1}, '"" has no effect on this server'),
    ):
        reply = httpx2.post(f"{url}/sdapi/v1/options", json=options)
        assert (reply.json(), reply.headers.get("x-warnings")) == (None, named)


def test_a_png_tells_its_parameters(webui: webuiapi.WebUIApi, url: str) -> None:
    reply = post(url, "txt2img", {"prompt": "a cat, red", "seed": 3, **QUICK}).json()
    file = base64.b64decode(reply["images"][0])
    result = webui.png_info(Image.open(io.BytesIO(file)))
    assert result.info.startswith("a cat, red\nSteps: 2, Sampler: Euler, ")
    wanted = {"Prompt": "a cat, red", "Seed": "3", "Size-1": "96", "Size-2": "64", "Steps": "2"}
    assert wanted.items() <= result.parameters.items()


def test_a_picture_that_tells_nothing_has_no_parameters(webui: webuiapi.WebUIApi) -> None:
    result = webui.png_info(picture(8, 8))
    assert (result.info, result.parameters) == ("", {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("txt2img", {"prompt": "a, b", "negative_prompt": "c: d", "cfg_scale": 7, "seed": 4}),
        ("txt2img", {"prompt": "a\n\nb", "distilled_cfg_scale": 2, "cfg_scale": 3.5}),
        ("txt2img", {"prompt": "a", "sampler_name": "Euler", "scheduler": "Karras"}),
        ("txt2img", {"prompt": " ❤ ", "sampler_name": "UniPC", "max_sequence_length": 8}),
        ("img2img", {"prompt": "a", "denoising_strength": 0.4}),
    ],
)
def test_a_picture_made_again_of_its_text_is_the_same_file(
    url: str, path: str, body: dict[str, Any]
) -> None:
    pictures = {"init_images": [base64_of(picture(96, 64))]} if path == "img2img" else {}
    first = post(url, path, {**QUICK, **pictures, **body}).json()["images"][0]
    text = post(url, "png-info", {"image": first}).json()["info"]
    again = post(url, path, {"infotext": text, **pictures}).json()["images"][0]
    assert again == first


def test_a_picture_of_another_protocol_can_be_made_again_here(url: str) -> None:
    body = {"prompt": "a red heart", "num_inference_steps": 2, "seed": 11, "size": "64x96"}
    reply = httpx2.post(f"{url}/v1/images/generations", json=body, timeout=60).json()
    first = reply["data"][0]["b64_json"]
    text = post(url, "png-info", {"image": f"data:image/png;base64,{first}"}).json()["info"]
    assert post(url, "txt2img", {"infotext": text}).json()["images"] == [first]


def test_what_the_body_says_goes_before_its_infotext(url: str) -> None:
    text = "a\nSteps: 9, Sampler: Euler, CFG scale: 3.5, Seed: 4, Size: 96x64"
    reply = post(url, "txt2img", {"infotext": text, "steps": 1, "seed": 8}).json()
    params = read_parameters(base64.b64decode(reply["images"][0])).params
    assert (params.num_inference_steps, params.seed, params.width) == (1, 8, 96)


def test_open_webuis_body_is_answered(url: str) -> None:
    body = {"prompt": "a red heart", "batch_size": 1, "width": 96, "height": 64, "steps": 2}
    reply = post(url, "txt2img", body).json()
    assert decoded(base64.b64decode(reply["images"][0], validate=True)).shape == (64, 96, 3)
    options = httpx2.get(f"{url}/sdapi/v1/options").json()
    models = httpx2.get(f"{url}/sdapi/v1/sd-models").json()
    assert options["sd_model_checkpoint"] == models[0]["title"]
    assert post(url, "options", options).status_code == 200


def test_librechats_body_is_answered(url: str) -> None:
    body = {
        "prompt": "a red heart",
        "negative_prompt": "blue",
        "cfg_scale": 4.5,
        "steps": 2,
        "width": 96,
        "height": 96,
        "sampler_index": "Euler",
    }
    reply = post(url, "txt2img", body).json()
    info = json.loads(reply["info"])
    assert info["infotexts"][0].startswith("a red heart\nNegative prompt: blue\nSteps: 2, ")
    assert (info["width"], info["height"], info["cfg_scale"]) == (96, 96, 4.5)
    assert isinstance(info["seed"], int)


def test_null_and_unknown_keys_mean_nothing(url: str) -> None:
    body = {"prompt": "a", "steps": 1, "firstphase_width": 0, "alwayson_scripts": {"x": {}}}
    nulls = dict.fromkeys(
        ("seed", "width", "sampler_name", "styles", "override_settings", "n_iter")
    )
    assert post(url, "txt2img", {**body, **nulls}).status_code == 200


def test_pictures_are_left_out_when_asked(url: str) -> None:
    assert post(url, "txt2img", {**QUICK, "send_images": False}).json()["images"] == []


WHITE = base64_of(Image.new("L", (8, 8), 255))
ANSWERS = app_with(ends=QueueFull("full", 7))


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("txt2img", {"steps": 0}, "steps=0: must be 1 to"),
        ("txt2img", {"steps": "many"}, "steps='many'"),
        ("txt2img", {"batch_size": 5, "n_iter": 9}, "batch_size * n_iter=45: must be 1 to 16"),
        ("txt2img", {"prompt": "<lora:>"}, "must be <lora:NAME:SCALE>"),
        ("txt2img", {"prompt": "a <lora:style:0.8>"}, "lora="),
        ("txt2img", {"infotext": "a\nSteps: x, Seed: 1, Size: 2x2"}, "is not a valid steps"),
        ("txt2img", [], "JSON object"),
        ("img2img", {"init_images": [WHITE]}, "init_images='a picture': flux only supports"),
        ("img2img", {"prompt": "a"}, "init_images='0 images': must be one image"),
        ("img2img", {"init_images": ["AAAA"]}, "can't be read as an image"),
        ("img2img", {"init_images": ["http://a/b.png"]}, "not fetched"),
        ("png-info", {"image": "AAAA"}, "can't be read as a PNG"),
        ("png-info", {}, "image is missing"),
    ],
)
def test_what_is_wrong_is_said_as_the_web_ui_says_it(path: str, body: Any, message: str) -> None:
    reply = ask(ANSWERS, "POST", f"/sdapi/v1/{path}", json=body)
    assert reply.status_code == 400
    assert message in reply.json()["detail"]
    assert {"error", "errors", "body"} <= reply.json().keys()


def test_a_full_queue_says_when_to_come_back() -> None:
    reply = ask(ANSWERS, "POST", "/sdapi/v1/txt2img", json={})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.json()["detail"] == "full"


def test_a_server_that_loads_says_so() -> None:
    app = app_without_engine()
    assert ask(app, "GET", "/sdapi/v1/scripts").status_code == 200
    for path in ("options", "sd-models", "samplers"):
        assert ask(app, "GET", f"/sdapi/v1/{path}").status_code == 503
    assert ask(app, "GET", "/sdapi/v1/progress").json()["progress"] == 0


def test_a_key_is_the_password() -> None:
    with serving(app_with(ends=QueueFull(""), api_key="secret")) as url:
        for password, known in (("secret", True), ("wrong", False)):
            address = f"{url}/sdapi/v1"
            client = webuiapi.WebUIApi(baseurl=address, username="me", password=password)
            assert ("sd_model_checkpoint" in client.get_options()) is known
