"""Pictures as they are made: OpenAI's stream, read by its own package."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from engines import requests_in
from fake_engine import FakeEngine
from http_serving import IMAGES, app_over, eventually, serving
from openai_client import client_of, encoded, file_of, pixels_of
from PIL import Image
from playground_server import PICTURES

from multimodal_gen.entrypoints.http.openai.streaming import Partials, with_pings
from multimodal_gen.errors import OutOfMemory
from multimodal_gen.launch.engine_process import EngineProcess

STEPS = {"num_inference_steps": 12, "seed": 3}
SLOW = {"num_inference_steps": 40, "size": "128x112"}
"""Long enough that not all previews are overtaken by the next; any of them may be."""


def stream(client: openai.OpenAI, extra: dict[str, Any] | None = None, **given: Any) -> list[Any]:
    fields = {"prompt": "a red heart", "size": "96x64", "stream": True, **given}
    return [*client.images.generate(extra_body={**STEPS, **(extra or {})}, **fields)]


@pytest.mark.parametrize("partials", [0, 1, 3])
def test_partial_pictures_come_before_the_picture(client: openai.OpenAI, partials: int) -> None:
    *shown, last = stream(client, SLOW, partial_images=partials)
    assert min(partials, 1) <= len(shown) <= partials
    assert {event.type for event in shown} <= {"image_generation.partial_image"}
    assert [event.partial_image_index for event in shown] == [*range(len(shown))]
    assert last.type == "image_generation.completed"
    assert (last.size, last.background, last.output_format) == ("128x112", "opaque", "png")
    assert (last.quality, last.usage.output_tokens, last.seed) == ("auto", 56, 3)
    assert all(pixels_of(event).shape == (112, 128, 3) for event in [*shown, last])


def test_partial_pictures_come_ever_closer_to_the_picture(client: openai.OpenAI) -> None:
    *shown, last = stream(client, SLOW, partial_images=3)
    final = pixels_of(last)
    distances = [np.abs(pixels_of(event) - final).mean() for event in shown]
    assert len(distances) == 1 or distances[0] > distances[-1]
    assert all(distance > 0 for distance in distances)


def test_the_picture_is_the_same_as_without_a_stream(client: openai.OpenAI) -> None:
    (event,) = stream(client)
    reply = client.images.generate(prompt="a red heart", size="96x64", extra_body=STEPS)
    assert np.abs(pixels_of(event) - pixels_of(reply.data[0])).max() <= 1


@pytest.mark.parametrize(("partials", "steps"), [(0, []), (1, [10]), (3, [5, 10, 15])])
@pytest.mark.parametrize("edits", [False, True])
def test_as_many_partial_pictures_come_as_were_asked_for(
    partials: int, steps: list[int], edits: bool
) -> None:
    engine = FakeEngine()
    engine.model = PICTURES
    given: dict[str, Any] = {
        "prompt": "a red heart",
        "stream": True,
        "partial_images": partials,
        "extra_body": {"num_inference_steps": 20},
    }
    kind = "image_edit" if edits else "image_generation"
    with serving(app_over(engine)) as url, client_of(url) as client:  # type: ignore[arg-type]
        events = iter(
            client.images.edit(image=encoded(Image.new("RGB", (96, 64))), **given)
            if edits
            else client.images.generate(**given)
        )
        for index, step in enumerate(steps):
            engine.show("a red heart", step)
            shown: Any = next(events)
            assert (shown.type, shown.partial_image_index) == (f"{kind}.partial_image", index)
            type(shown).model_validate(shown.model_dump(), strict=True)
        engine.finish("a red heart")
        assert [event.type for event in events] == [f"{kind}.completed"]


def test_each_of_several_pictures_completes(client: openai.OpenAI) -> None:
    events = stream(client, SLOW, n=2, partial_images=2)
    completed = [event for event in events if event.type == "image_generation.completed"]
    assert sorted(event.image_index for event in completed) == [0, 1]
    assert {event.seed for event in completed} == {3, 4}
    for index in range(2):
        mine = [event for event in events if event.image_index == index]
        assert mine[-1].type == "image_generation.completed"
        assert [event.partial_image_index for event in mine[:-1]] in ([], [0], [0, 1])


def test_an_edit_streams_its_own_events(client: openai.OpenAI) -> None:
    picture = encoded(Image.new("RGB", (96, 64), "navy"))
    given: dict[str, Any] = {"prompt": "a dog", "stream": True, "partial_images": 1}
    extra = {**STEPS, **SLOW, "strength": 0.8}
    *shown, last = client.images.edit(image=picture, extra_body=extra, **given)
    assert [event.type for event in shown] in ([], ["image_edit.partial_image"])
    assert last.type == "image_edit.completed"


def test_partial_pictures_are_in_the_format_asked_for(client: openai.OpenAI) -> None:
    for event in stream(client, partial_images=1, output_format="webp"):
        assert file_of(event)[8:12] == b"WEBP"
        assert event.output_format == "webp"


def test_progress_is_told_when_asked_for(client: openai.OpenAI) -> None:
    events = stream(client, {"stream_progress": True})
    told = [event for event in events if event.type == "image_generation.progress"]
    steps = [event.step for event in told]
    assert steps == sorted(steps)
    assert told[-1].step <= told[-1].total == 12


def test_the_stream_is_plain_server_sent_events(url: str) -> None:
    body = {"prompt": "a dog", "stream": True, **STEPS}
    with httpx2.stream("POST", url + IMAGES, json=body, timeout=60) as response:
        text = "".join(response.iter_text())
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    first, second, *rest = text.split("\n")
    assert first == "event: image_generation.completed"
    assert json.loads(second.removeprefix("data: "))["type"] == "image_generation.completed"
    assert rest == ["", ""]


def test_a_client_that_leaves_the_stream_ends_its_work(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    # It would take far longer than is waited for its end.
    extra = {"num_inference_steps": 1000, "stream_progress": True}
    given: dict[str, Any] = {"prompt": "a dog", "size": "128x128", "stream": True}
    with client.images.generate(**given, extra_body=extra) as events:
        step = next(event.step for event in events if event.step)
    assert 0 < step < 800
    assert eventually(lambda: requests_in(engine) == 0, 10)


def test_an_error_in_mid_stream_is_openais_error() -> None:
    engine = FakeEngine()
    with serving(app_over(engine)) as url, client_of(url) as client:  # type: ignore[arg-type]
        thread = threading.Thread(target=_fail_soon, args=(engine,))
        thread.start()
        with pytest.raises(openai.APIError) as caught:
            stream(client)
        thread.join()
    assert (caught.value.code, caught.value.type) == ("out_of_memory", "server_error")
    assert caught.value.message == "too large \ud800 for the device"


def _fail_soon(engine: FakeEngine) -> None:
    assert eventually(lambda: engine.prompts == ["a red heart"])
    engine.fail("a red heart", OutOfMemory("too large \ud800 for the device"))


def test_what_is_refused_is_refused_before_the_stream(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stream(client, size="95x64")
    assert caught.value.param == "size"


@pytest.mark.parametrize("asked", [0, 1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 39])
def test_previews_become_partials_spread_over_the_steps(asked: int, steps: int) -> None:
    partials = Partials(asked)
    taken = [done for done in range(1, steps) if partials.take(done / steps) is not None]
    assert len(taken) == min(asked, steps - 1)
    if steps >= 10 and asked:
        gaps = np.diff([0, *taken, steps])
        assert gaps.max() - gaps.min() <= 2


def test_previews_that_are_late_leave_room_for_the_others() -> None:
    partials = Partials(3)
    assert [partials.take(fraction) for fraction in (0.1, 0.6, 0.65, 0.75, 0.9, 0.95)] == [
        None,
        0,
        None,
        1,
        2,
        None,
    ]


def test_a_silent_stream_is_kept_alive() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.1)
        yield b"last"

    async def read() -> list[bytes]:
        return [part async for part in with_pings(slow(), 0.03)]

    first, *pings, last = asyncio.run(read())
    assert (first, last) == (b"first", b"last")
    assert pings
    assert set(pings) == {b": ping\n\n"}


def test_a_stream_that_nobody_reads_to_its_end_ends_what_feeds_it() -> None:
    ended = []

    async def feed() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def read() -> None:
        stream = with_pings(feed())
        assert await anext(stream) == b"first"
        await asyncio.sleep(0)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())
    assert ended
