"""Accounts of use: in replies, events, jobs and videos, and in totals by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, app_over, ask, eventually
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import GenerationFailed
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.reply import Usage
from multimodal_gen.messages.request import Req
from multimodal_gen.observability.key_totals import MOST_KEYS, OTHERS, KeyTotals
from multimodal_gen.serving.usage import RequestUsage

PROMPT = "a red heart"
"""Three words that the bundled model knows: a token each."""


def generate(url: str, **fields: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, "size": "96x64", "num_inference_steps": 2, **fields}
    return httpx2.post(url + IMAGES, json=body, timeout=60).raise_for_status().json()


def details(text: int, image: int) -> dict[str, int]:
    return {"image_tokens": image, "text_tokens": text}


def test_usage_counts_prompt_pixels_and_work(client: openai.OpenAI) -> None:
    reply = client.images.generate(
        prompt=PROMPT, size="96x64", n=2, extra_body={"num_inference_steps": 3}
    )
    assert reply.usage is not None
    assert reply.usage.input_tokens == 3
    assert reply.usage.output_tokens == 2 * (6 * 4)
    assert reply.usage.total_tokens == 3 + 48
    assert reply.usage.megapixel_steps == pytest.approx(2 * 3 * 96 * 64 / 1e6)


def test_each_pass_of_an_upscaled_picture_counts_at_its_size(url: str) -> None:
    usage = generate(url, upscale={"factor": 2, "steps": 4, "strength": 1})["usage"]
    work = 2 * 96 * 64 + 4 * 192 * 128
    assert usage["megapixel_steps"] == pytest.approx(work / 1e6)
    assert usage["output_tokens"] == 12 * 8


def test_input_pictures_count_as_tokens(url: str, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    form = {"prompt": PROMPT, "num_inference_steps": "2"}
    with (tmp_path / "a.png").open("rb") as file:
        reply = httpx2.post(
            f"{url}/v1/images/edits", data=form, files={"image": file}, timeout=60
        ).raise_for_status()
    assert reply.json()["usage"]["input_tokens_details"] == details(3, 24)


def test_the_last_event_of_a_stream_has_the_usage(client: openai.OpenAI) -> None:
    extra = {"num_inference_steps": 2}
    *_, last = client.images.generate(prompt=PROMPT, size="96x64", stream=True, extra_body=extra)
    assert (last.usage.input_tokens, last.usage.output_tokens) == (3, 24)


def test_a_job_says_what_it_cost(url: str) -> None:
    job = generate(url, run_in_background=True)
    assert job["usage"] is None

    def now(path: str) -> dict[str, Any]:
        return httpx2.get(f"{url}{path}/{job['id']}").raise_for_status().json()

    assert eventually(lambda: now("/v1/jobs")["status"] == "completed")
    usage = now("/v1/jobs")["usage"]
    assert usage == now("/v1/images/jobs")["usage"]
    assert (usage["total_tokens"], usage["output_tokens"]) == (27, 24)
    assert usage["megapixel_steps"] == pytest.approx(2 * 96 * 64 / 1e6)


def req(prompt: str = "a", **pictures: FrameHeader) -> Req:
    return Req(id=prompt, params=SamplingParams(prompt=prompt), pictures=pictures)


def made(prompt_tokens: int, shape: tuple[int, ...] = (1, 17, 16, 3), steps: float = 1.5) -> Output:
    pixels = np.zeros(shape, np.uint8)
    return Output("a", pixels, 0, None, {}, [], usage=Usage(prompt_tokens, steps))


def test_inputs_count_once_for_all_outputs_and_outputs_each() -> None:
    picture = FrameHeader((32, 33, 3))
    usage = RequestUsage.of([req(image=picture)] * 3, [made(4)] * 3)
    assert (usage.text_tokens, usage.picture_tokens) == (4, 6)
    assert (usage.output_tokens, usage.megapixel_steps) == (3 * 2, 4.5)


def test_different_prompts_of_a_request_count_each() -> None:
    assert RequestUsage.of([req("a"), req("b")], [made(4), made(5)]).text_tokens == 9


def test_frames_of_videos_count_each() -> None:
    video = FrameHeader((5, 16, 16, 3))
    usage = RequestUsage.of([req(video=video)], [made(1, (9, 16, 32, 3))])
    assert (usage.picture_tokens, usage.output_tokens) == (5, 18)


def test_a_mask_counts_like_a_picture() -> None:
    pictures = {"image": FrameHeader((32, 32, 3)), "mask": FrameHeader((32, 32))}
    assert RequestUsage.of([req(**pictures)], [made(1)]).picture_tokens == 8


# -- totals by key


KEYS = "anna: key-of-anna\nbob: key-of-bob\n"


def asking(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def engine_that_ends_all() -> FakeEngine:
    """Ends each request as it comes: with an image, or, if its prompt says so, with an error."""
    engine = FakeEngine()
    submit = engine.submit

    def end(given: Req, pictures: Any = ()) -> Any:
        handle = submit(given, pictures)
        if given.params.prompt == "fail":
            engine.fail("fail", GenerationFailed("it went wrong"))
        else:
            engine.finish(given.params.prompt)
        return handle

    engine.submit = end  # type: ignore[method-assign]
    return engine


@pytest.fixture
def app(engine_that_ends_all: FakeEngine, tmp_path: Path) -> FastAPI:
    (tmp_path / "keys.yaml").write_text(KEYS)
    given = {"api_keys_file": str(tmp_path / "keys.yaml"), "admin_key": "key-of-admin"}
    return app_over(engine_that_ends_all, **given)  # type: ignore[arg-type]


def totals(app: FastAPI, key: str, accept: str = "text/plain") -> dict[tuple[str, ...], float]:
    reply = ask(app, "GET", "/metrics", headers={**asking(key), "accept": accept})
    assert "key-of" not in reply.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
        if sample.name.startswith("multimodal_gen_key_")
    }


def test_totals_by_key_are_counted_by_name(app: FastAPI) -> None:
    for prompt in ("a b", "fail"):
        ask(app, "POST", IMAGES, json={"prompt": prompt, "n": 2}, headers=asking("key-of-anna"))
    ask(app, "POST", IMAGES, json={"prompt": "a"}, headers=asking("key-of-bob"))
    found = totals(app, "key-of-admin")
    assert found["multimodal_gen_key_requests_total", "anna", "completed"] == 2
    assert found["multimodal_gen_key_requests_total", "anna", "failed"] == 2
    assert found["multimodal_gen_key_requests_total", "bob", "completed"] == 1
    assert found["multimodal_gen_key_images_total", "anna"] == 2
    assert found["multimodal_gen_key_prompt_tokens_total", "anna"] == 2
    work = 2 * 20 * 96 * 96 / 1e6
    assert found["multimodal_gen_key_megapixel_steps_total", "anna"] == pytest.approx(work)


def test_a_key_among_others_does_not_see_their_totals(app: FastAPI) -> None:
    ask(app, "POST", IMAGES, json={"prompt": "a"}, headers=asking("key-of-anna"))
    assert not totals(app, "key-of-bob")
    assert totals(app, "key-of-admin", "application/openmetrics-text")


def test_without_keys_all_is_counted_together(engine_that_ends_all: FakeEngine) -> None:
    app = app_over(engine_that_ends_all)  # type: ignore[arg-type]
    ask(app, "POST", IMAGES, json={"prompt": "a"})
    assert totals(app, "")["multimodal_gen_key_images_total", "anonymous"] == 1


def test_the_number_of_keys_that_are_told_apart_is_bounded() -> None:
    counted = KeyTotals()
    for number in range(2 * MOST_KEYS):
        counted.of(f"key {number}").images += 1
    assert len(counted.by_key) == MOST_KEYS + 1
    assert counted.by_key[OTHERS].images == MOST_KEYS
