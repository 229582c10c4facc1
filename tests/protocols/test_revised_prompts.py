"""How a prompt was read and revised reaches the client in every protocol, and the files."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from http_serving import IMAGES, MODEL, app_over, eventually, serving

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.python.calls import generate_one
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.infotext import parse_infotext
from multimodal_gen.postprocess.metadata import read_infotext, read_parameters

REVISED = "A red heart on a white table, in soft light."
NOTES = ("prompt: 1 chunk; weights: red 1.3",)
ASKED = {"prompt": "a red heart", "enhance_prompt": True}


class EnhancingEngine(FakeEngine):
    """Ends every request at once; its prompt was another."""

    def __init__(self) -> None:
        super().__init__(msgspec.structs.replace(MODEL, parameters=("enhance_prompt",)))

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle

    def _end(self, request_id: str, outcome: Any) -> None:
        told = {"revised_prompt": REVISED, "prompt_notes": NOTES}
        super()._end(request_id, replace(outcome, **told))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app_over(cast(SchedulerClient, EnhancingEngine()))) as url:
        yield url


def post(url: str, **given: Any) -> httpx2.Response:
    return httpx2.post(url, json={**ASKED, **given}, timeout=60).raise_for_status()


def when_done(url: str) -> Any:
    assert eventually(lambda: httpx2.get(url).json()["status"] == "completed", 30)
    return httpx2.get(url).json()


def test_openais_images_have_it(url: str) -> None:
    (data,) = post(url + IMAGES).json()["data"]
    assert data["revised_prompt"] == REVISED
    assert data["prompt_notes"] == [*NOTES]


def test_openais_stream_has_it_in_the_completed_event(url: str) -> None:
    (data,) = [line for line in post(url + IMAGES, stream=True).text.split("\n") if "data:" in line]
    assert json.loads(data.removeprefix("data: "))["revised_prompt"] == REVISED


def test_files_have_the_prompt_that_was_used_and_the_one_that_was_asked_for(url: str) -> None:
    (data,) = post(url + IMAGES).json()["data"]
    file = base64.b64decode(data["b64_json"])
    recipe = read_parameters(file)
    assert (recipe.params.prompt, recipe.revised_prompt) == (ASKED["prompt"], REVISED)
    said = parse_infotext(read_infotext(file))
    assert (said["Prompt"], said["Original prompt"]) == (REVISED, ASKED["prompt"])


def test_a_job_has_it_when_it_is_done(url: str) -> None:
    job = post(url + IMAGES, run_in_background=True).json()
    done = when_done(f"{url}/v1/jobs/{job['id']}")
    assert done["outputs"][0]["revised_prompt"] == REVISED
    assert done["prompt_notes"] == [*NOTES]
    assert done["parameters"]["prompt"] == ASKED["prompt"]
    (data,) = when_done(f"{url}/v1/images/jobs/{job['id']}")["data"]
    assert data["revised_prompt"] == REVISED


def test_a_video_job_has_it_when_it_is_done() -> None:
    engine = EnhancingEngine()
    defaults = Defaults(width=96, height=96, num_inference_steps=20, num_frames=1, fps=8)
    engine.model = msgspec.structs.replace(
        engine.model, tasks=("text-to-video",), defaults=defaults
    )
    with serving(app_over(cast(SchedulerClient, engine))) as url:
        job = post(url + "/v1/videos").json()
        assert when_done(f"{url}/v1/videos/{job['id']}")["revised_prompt"] == REVISED


def test_a_result_in_python_has_it() -> None:
    params = SamplingParams(**ASKED, seed=1, num_inference_steps=4, width=96, height=96)
    result = asyncio.run(generate_one(cast(SchedulerClient, EnhancingEngine()), params))
    assert result.revised_prompt == result.recipe().revised_prompt == REVISED
    assert result.prompt_notes == NOTES


def test_a_server_without_an_enhancer_says_so() -> None:
    with serving(app_over(cast(SchedulerClient, FakeEngine()))) as url:
        error = httpx2.post(url + IMAGES, json=ASKED).json()["error"]
    assert error["param"] == "enhance_prompt"
    assert "needs the server's option --prompt-enhancer" in error["message"]
