"""The unmodified huggingface_hub package against a real engine."""

from __future__ import annotations

import base64
import io
import json
import logging

import httpx2
import msgspec
import numpy as np
import pytest
from engines import submit_to
from http_serving import MODEL, app_with, app_without_engine, ask, serving
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from openai_client import encoded
from PIL import Image
from tiny_checkpoints.pictures import picture

from multimodal_gen.errors import QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters

QUICK = {"num_inference_steps": 2}
FULL = app_with(ends=QueueFull("full", 7))


@pytest.fixture(autouse=True)
def _client_may_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are offline, and so would the client be."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def hf(url: str) -> InferenceClient:
    return InferenceClient(model=f"{url}/hf", token="hf_none")


def test_a_prompt_alone_makes_a_picture_of_the_models_size(hf: InferenceClient) -> None:
    image = hf.text_to_image("a red heart")
    assert (image.format, image.size) == ("PNG", (96, 96))


def test_all_parameters_arrive(hf: InferenceClient, engine: EngineProcess) -> None:
    image = hf.text_to_image(
        "a red heart",
        negative_prompt="blue",
        width=64,
        height=96,
        num_inference_steps=2,
        guidance_scale=2.5,
        scheduler="FlowMatchHeunDiscreteScheduler",
        seed=7,
        extra_body={"true_cfg_scale": 3},
    )
    direct = submit_to(
        engine,
        negative_prompt="blue",
        width=64,
        height=96,
        num_inference_steps=2,
        guidance_scale=2.5,
        scheduler="flow_heun",
        seed=7,
        true_cfg_scale=3,
    ).result(60)
    assert np.abs(np.asarray(image).astype(int) - direct.pixels[0]).max() <= 1


@pytest.mark.parametrize("path", ["", "/", "/models/owner/any-name"])
def test_a_client_may_be_given_other_urls(url: str, path: str) -> None:
    client = InferenceClient(model=url + path, token="hf_none")
    assert client.text_to_image("a red heart", **QUICK).size == (96, 96)


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/webp,*/*;q=0.1", "WEBP"),
        ("image/jpeg;q=0.5, image/webp;q=0.9", "WEBP"),
        ("*/*", "PNG"),
        ("image/avif;q=nonsense", "PNG"),
    ],
)
def test_accept_chooses_the_kind_of_file(url: str, accept: str, format: str) -> None:
    body = {"inputs": "a red heart", "parameters": QUICK}
    reply = httpx2.post(f"{url}/hf", json=body, headers={"accept": accept}, timeout=60)
    assert reply.headers["content-type"] == f"image/{format.lower()}"
    with Image.open(io.BytesIO(reply.content)) as image:
        assert image.format == format


def test_a_picture_with_parameters_is_changed(hf: InferenceClient) -> None:
    made = [
        hf.image_to_image(
            encoded(picture(96, 64)),
            prompt="a red heart",
            negative_prompt="blue",
            num_inference_steps=4,
            guidance_scale=2.5,
            target_size={"width": 64, "height": 96},
            seed=3,
            strength=strength,
        )
        for strength in (0.5, 1.0)
    ]
    assert [image.size for image in made] == [(64, 96), (64, 96)]
    assert not np.array_equal(*map(np.asarray, made))


def test_a_picture_without_a_prompt_among_its_parameters_is_still_a_picture(
    hf: InferenceClient,
) -> None:
    image = hf.image_to_image(encoded(picture(96, 64)), guidance_scale=2.5)
    assert image.width > image.height


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_parameters_is_sent_as_it_is(hf: InferenceClient, format: str) -> None:
    image = hf.image_to_image(encoded(picture(96, 64), format))
    assert image.width > image.height


def test_the_file_says_how_it_was_made(url: str) -> None:
    body = {"inputs": "a red heart", "parameters": {**QUICK, "seed": 5}}
    reply = httpx2.post(f"{url}/hf", json=body, timeout=60)
    params = read_parameters(reply.content).params
    assert (params.seed, params.num_inference_steps) == (5, 2)
    assert reply.headers["x-seed"] == "5"


def test_unknown_parameters_are_named_in_a_warning_that_the_client_shows(
    hf: InferenceClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "huggingface_hub"):
        hf.text_to_image("a red heart", **QUICK, extra_body={"eta": 1, "né\n": 1, "": 1, " ": 1})
    assert 'eta, n??, "", ?' in caplog.text


def test_a_solver_that_the_model_lacks_is_the_nearest_with_a_warning(
    hf: InferenceClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "huggingface_hub"):
        hf.text_to_image("a red heart", **QUICK, scheduler="KDPM2DiscreteScheduler")
    assert "scheduler='KDPM2DiscreteScheduler': this model uses flow_euler instead" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"width": 50}, "width=50: must be a multiple of 16; 48 or 64 are the nearest"),
        ({"extra_body": {"scheduler": 3}}, "scheduler=3: must be text"),
        ({"num_inference_steps": 0}, "num_inference_steps=0: must be 1 to"),
        ({"extra_body": {"num_images_per_prompt": 2}}, "num_images_per_prompt=2: "),
        ({"extra_body": {"target_size": [64, 64]}}, "target_size="),
        ({"extra_body": {"prompt": "a"}}, "inputs='a red heart': must be a file"),
        ({"extra_body": {"seed": "seven"}}, "seed='seven': must be a whole number"),
    ],
)
def test_what_is_wrong_is_in_the_exception(
    hf: InferenceClient, extra: dict[str, object], message: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        hf.text_to_image("a red heart", **extra)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"no picture", b'{"inputs": 3}', b'{"inputs": "a", "parameters": 1}']
)
def test_a_body_that_is_neither_is_refused(body: bytes) -> None:
    reply = ask(FULL, "POST", "/hf", content=body)
    assert reply.status_code == 400
    assert {"error", "error_type"} <= reply.json().keys()


def test_what_only_looks_like_base64_is_a_prompt() -> None:
    for prompt in ("iVBORw0KGgo=", base64.b64encode(b"a" * 99).decode(), "GIF8" * 40):
        body = json.dumps({"inputs": prompt})
        assert ask(FULL, "POST", "/hf", content=body).status_code == 429


def test_a_server_that_loads_or_is_full_says_so() -> None:
    with (
        serving(app_without_engine()) as url,
        pytest.raises(HfHubHTTPError, match="still loading") as caught,
    ):
        InferenceClient(model=f"{url}/hf", token="hf_none").text_to_image("a red heart")
    assert caught.value.response.status_code == 503
    reply = ask(FULL, "POST", "/hf", json={"inputs": "a"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.json()["error"] == "full"


def test_a_key_is_the_token() -> None:
    app = app_with(ends=QueueFull("full"), api_key="secret")
    with serving(app) as url:
        for token, status in (("secret", 429), ("wrong", 401)):
            with pytest.raises(HfHubHTTPError) as caught:
                InferenceClient(model=url, token=token).text_to_image("a")
            assert caught.value.response.status_code == status


def test_a_model_that_makes_videos_is_refused() -> None:
    model = msgspec.structs.replace(MODEL, tasks=("text-to-video",))
    reply = ask(app_with(model=model, ends=QueueFull("")), "POST", "/hf", json={"inputs": "a"})
    assert (reply.status_code, reply.json()["field"]) == (400, "model")
