"""The unmodified openai package against a real engine."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import socket
import time
from typing import Any

import numpy as np
import openai
import pytest
from engines import requests_in, submit_to
from http_serving import IMAGES, MODEL, app_with, app_without_engine, eventually, serving
from openai_client import client_of, file_of, pixels_of
from PIL import Image
from told import texts

from multimodal_gen.errors import QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters

QUICK = {"num_inference_steps": 2}
LONG = {"num_inference_steps": 1000}


def generate(client: openai.OpenAI, *, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    given = {"prompt": "a red heart", **fields}
    return client.images.generate(**given, extra_body={**QUICK, **(extra or {})})


def test_a_picture_is_the_same_as_by_every_other_way_in(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    reply = generate(client, size="64x96", extra={"seed": 7})
    direct = submit_to(engine, seed=7, width=64, height=96, **QUICK).result(60)
    assert (reply.size, reply.output_format, reply.background) == ("64x96", "png", "opaque")
    difference = pixels_of(reply.data[0]) - direct.pixels[0]
    assert np.abs(difference).max() <= 1


def test_an_upscaled_picture_has_the_size_that_it_is_made_at(client: openai.OpenAI) -> None:
    upscale = {"factor": 1.5, "steps": 4}
    reply = generate(client, size="64x96", extra={"seed": 7, "upscale": upscale})
    assert reply.size == "96x144"
    assert pixels_of(reply.data[0]).shape == (144, 96, 3)


def test_several_pictures_have_seeds_in_a_row_and_differ(client: openai.OpenAI) -> None:
    reply = generate(client, n=3, extra={"seed": 5})
    assert reply.seeds == [5, 6, 7]
    assert len({file_of(image) for image in reply.data}) == 3


def test_every_picture_can_have_its_own_seed(client: openai.OpenAI) -> None:
    reply = generate(client, extra={"seed": [9, 3]})
    assert [image.seed for image in reply.data] == [9, 3]
    alone = generate(client, extra={"seed": 3})
    difference = pixels_of(reply.data[1]) - pixels_of(alone.data[0])
    assert np.abs(difference).max() <= 1


def test_unseeded_pictures_differ(client: openai.OpenAI) -> None:
    first, second = generate(client), generate(client)
    assert first.seeds != second.seeds


def test_what_was_asked_for_is_in_the_picture(client: openai.OpenAI) -> None:
    extra = {"seed": 4, "num_inference_steps": 3, "true_cfg_scale": 2.5, "negative_prompt": "blue"}
    reply = generate(client, extra=extra)
    params = read_parameters(file_of(reply.data[0])).params
    assert (params.prompt, params.seed, params.num_inference_steps) == ("a red heart", 4, 3)
    assert (params.true_cfg_scale, params.negative_prompt) == (2.5, "blue")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_format_is_the_one_asked_for(client: openai.OpenAI, kind: Any) -> None:
    reply = generate(client, output_format=kind, output_compression=0)
    with Image.open(io.BytesIO(file_of(reply.data[0]))) as image:
        assert image.format == kind.upper()
    assert reply.output_format == kind


def test_the_reply_has_openais_fields_and_ours(client: openai.OpenAI) -> None:
    reply = generate(client)
    assert abs(reply.created - time.time()) < 60
    assert (reply.usage.total_tokens, reply.usage.input_tokens_details.text_tokens) == (39, 3)
    assert {"encode", "denoise", "decode", "total"} <= reply.timings.keys()
    assert reply.id.startswith("req_")
    assert "warnings" not in reply.model_extra


def test_what_has_no_effect_is_told(client: openai.OpenAI) -> None:
    reply = generate(client, model="gpt-image-1", quality="high", extra={"sharpness\0": 1})
    assert len(reply.warnings) == 2
    assert any("quality" in warning for warning in texts(reply.warnings))
    assert any("sharpness" in warning for warning in texts(reply.warnings))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "100x96"}, "size"),
        ({"size": "10000x10000"}, "size"),
        ({"n": 0}, "n"),
        ({"extra": {"num_inference_steps": -1}}, "num_inference_steps"),
        ({"extra": {"scheduler": "nonsense"}}, "scheduler"),
        ({"extra": {"upscale": {"factor": 9}}}, "upscale"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"stream": True, "response_format": "file"}, "response_format"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
    ],
)
def test_a_bad_value_is_openais_bad_request_error(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        generate(client, **fields)
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("owner/other")
    assert caught.value.code == "model_not_found"


def test_a_model_with_a_slash_in_its_name_is_retrieved() -> None:
    with serving(app_with(ends=QueueFull("full"))) as url, client_of(url) as client:
        assert client.models.retrieve(MODEL.name).id == MODEL.name


def test_a_wrong_key_is_openais_authentication_error() -> None:
    with serving(app_without_engine(api_key="right")) as url:
        with client_of(url) as client, pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        with client_of(url, api_key="right") as client:
            with pytest.raises(openai.InternalServerError) as loading:
                client.models.list()
            assert (loading.value.status_code, loading.value.code) == (503, "engine_not_ready")


def test_a_full_queue_is_openais_rate_limit_error() -> None:
    with (
        serving(app_with(ends=QueueFull("full", 0.5))) as url,
        client_of(url) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        generate(client)
    assert caught.value.code == "queue_full"
    assert caught.value.response.headers["retry-after"] == "1"


def test_many_clients_at_once_are_all_served(url: str) -> None:
    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            calls = [
                client.images.generate(prompt="a dog", extra_body={"seed": seed, **QUICK})
                for seed in range(8)
            ]
            return await asyncio.gather(*calls)

    replies = asyncio.run(run())
    assert [reply.seeds for reply in replies] == [[seed] for seed in range(8)]


def test_a_client_that_leaves_takes_its_request_with_it(url: str, engine: EngineProcess) -> None:
    host, port = url.removeprefix("http://").split(":")
    # They would take far longer than is waited for their end.
    body = json.dumps({"prompt": "a red heart", "n": 2, "size": "128x128", **LONG}).encode()
    head = (
        f"POST {IMAGES} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode() + body)
        assert eventually(lambda: engine.client.health().running == 2)
    assert eventually(lambda: requests_in(engine) == 0, 10)


def test_a_request_that_does_not_fit_whole_is_refused_whole(
    url: str, engine: EngineProcess
) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0
        ) as client:
            ask = functools.partial(client.images.generate, prompt="a dog", n=10, extra_body=LONG)
            waiting = [asyncio.create_task(ask()) for _ in range(3)]
            assert await asyncio.to_thread(eventually, lambda: requests_in(engine) == 30)
            with pytest.raises(openai.RateLimitError) as caught:
                await ask()
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert await asyncio.to_thread(eventually, lambda: requests_in(engine) == 30)
            for task in waiting:
                task.cancel()

    asyncio.run(run())
    assert eventually(lambda: requests_in(engine) == 0)
