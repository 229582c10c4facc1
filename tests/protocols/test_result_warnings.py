"""Warnings of a result reach the client in each protocol's own place for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from http_serving import IMAGES, app_over, eventually, serving
from huggingface_hub import InferenceClient, constants
from told import texts

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.entrypoints.http.transport.warnings import warning_headers
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning

WARNING = "lora='ink': é has no effect"
IN_A_HEADER = "lora='ink': ? has no effect"
BODY = {"prompt": "a red heart"}


class WarningEngine(FakeEngine):
    """Ends every request at once, with a warning."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings = (RequestWarning("adapter", "lora", WARNING),)

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app_over(WarningEngine())) as url:  # type: ignore[arg-type]
        yield url


@pytest.fixture(scope="module")
def video_url() -> Iterator[str]:
    engine = WarningEngine()
    defaults = Defaults(width=96, height=96, num_inference_steps=20, num_frames=1, fps=8)
    engine.model = msgspec.structs.replace(
        engine.model, tasks=("text-to-video",), defaults=defaults
    )
    with serving(app_over(engine)) as url:  # type: ignore[arg-type]
        yield url


def post(url: str, **given: Any) -> httpx2.Response:
    return httpx2.post(url, json={**BODY, **given}, timeout=60).raise_for_status()


def when_done(url: str) -> Any:
    assert eventually(lambda: httpx2.get(url).json()["status"] == "completed", 30)
    return httpx2.get(url).json()


def test_openais_images_have_warnings_besides_those_of_the_body(url: str) -> None:
    reply = post(url + IMAGES, n=2, sharpness=1).json()
    assert texts(reply["warnings"]) == ["'sharpness' is unknown and was ignored", WARNING]


def test_each_warning_has_a_code_and_the_name_of_its_field(url: str) -> None:
    unknown, engines = post(url + IMAGES, sharpness=1).json()["warnings"]
    assert (unknown["code"], unknown["field"]) == ("unknown_field", "sharpness")
    assert engines == {"code": "adapter", "field": "lora", "text": WARNING}


def test_openais_stream_has_them_in_the_completed_event(url: str) -> None:
    (data,) = [line for line in post(url + IMAGES, stream=True).text.split("\n") if "data:" in line]
    assert texts(json.loads(data.removeprefix("data: "))["warnings"]) == [WARNING]


def test_an_image_file_has_them_in_a_header(url: str) -> None:
    headers = post(url + IMAGES, response_format="file", sharpness=1).headers
    assert headers["x-warnings"] == f"'sharpness' is unknown and was ignored; {IN_A_HEADER}"


def test_an_image_job_has_them_when_it_is_done(url: str) -> None:
    job = post(url + IMAGES, run_in_background=True, sharpness=1).json()
    expected = ["'sharpness' is unknown and was ignored", WARNING]
    assert texts(when_done(f"{url}/v1/images/jobs/{job['id']}")["warnings"]) == expected
    assert texts(when_done(f"{url}/v1/jobs/{job['id']}")["warnings"]) == expected


def test_a_video_job_has_them_when_it_is_done(video_url: str) -> None:
    job = post(video_url + "/v1/videos").json()
    assert texts(when_done(f"{video_url}/v1/videos/{job['id']}")["warnings"]) == [WARNING]


def test_a1111s_info_has_them(url: str) -> None:
    info = json.loads(post(url + "/sdapi/v1/txt2img").json()["info"])
    assert texts(info["warnings"]) == [WARNING]


def test_a1111s_info_has_its_own_name_of_a_parameter_without_effect() -> None:
    engine = WarningEngine()
    engine.model = msgspec.structs.replace(engine.model, no_effect=("guidance_scale",))
    with serving(app_over(engine)) as url:  # type: ignore[arg-type]
        info = json.loads(post(url + "/sdapi/v1/txt2img", cfg_scale=7).json()["info"])
    told = "cfg_scale has no effect: this model does not use it"
    assert info["warnings"][0] == {"code": "no_effect", "field": "cfg_scale", "text": told}
    assert "CFG" not in info["infotexts"][0]


def test_the_hub_client_shows_them(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(model=f"{url}/hf", token="none")
    with caplog.at_level(logging.WARNING, "huggingface_hub"):
        client.text_to_image("a red heart")
    assert IN_A_HEADER in caplog.text


def test_each_warning_has_its_own_topic_in_the_hubs_header(url: str) -> None:
    reply = httpx2.post(f"{url}/hf", json={"inputs": "a red heart", "parameters": {"eta": 1}})
    topics, lines = zip(
        *(line.split("; ", 1) for line in reply.headers.get_list("x-hf-warning")), strict=True
    )
    assert lines == ("these parameters are unknown and were ignored: eta", IN_A_HEADER)
    assert len(set(topics)) == 2


def test_comfyuis_history_has_them_where_the_prompt_succeeded(url: str) -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "owner/name"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a red heart"}},
        "3": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 96, "height": 96, "batch_size": 1},
        },
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["2", 0],
                "latent_image": ["3", 0],
                "seed": 0,
                "steps": 2,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }
    prompt = httpx2.post(url + "/prompt", json={"prompt": graph}).raise_for_status().json()
    history = f"{url}/history/{prompt['prompt_id']}"
    assert eventually(lambda: bool(httpx2.get(history).json()), 30)
    entry = httpx2.get(history).json()[prompt["prompt_id"]]
    assert texts(dict(entry["status"]["messages"])["execution_success"]["warnings"])[-1] == WARNING


@pytest.mark.parametrize("warning", ["a" * 999 + " b", " a", "a ", "\n"])
def test_warnings_never_make_a_header_that_can_not_be_sent(warning: str) -> None:
    for value in warning_headers([RequestWarning("adapter", "lora", warning)]).values():
        assert value == value.strip()
        assert value.isprintable()
