"""The unmodified openai package makes videos, on a real engine."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx2
import numpy as np
import openai
import pytest
from engines import requests_in, start_engine
from http_serving import MODEL, address_of, app_over, app_with, ask, eventually, serving
from PIL import Image
from told import texts

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.openai.video_objects import poll_after_ms
from multimodal_gen.entrypoints.http.openai.video_schema import frames_of
from multimodal_gen.errors import QueueFull
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.postprocess.metadata import read_parameters
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

QUICK = {"num_inference_steps": 2, "num_frames": 5}
LONG = {"num_inference_steps": 900, "num_frames": 5}
SIZE = "96x64"
VIDEOS = "/v1/videos"


@pytest.fixture(scope="module")
def engine(checkpoints: Callable[..., Path]) -> Iterator[EngineProcess]:
    with start_engine(model_path=str(checkpoints("wan22-ti2v")), max_queue_size=32) as engine:
        engine.wait_ready(90)
        yield engine


@pytest.fixture(scope="module")
def url(engine: EngineProcess) -> Iterator[str]:
    with serving(app_over(engine.client, max_queue_size=32)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, *, extra: dict[str, Any] | None = None, **fields: Any) -> Any:
    given: dict[str, Any] = {"prompt": "a red heart", "size": SIZE, **fields}
    return client.videos.create(**given, extra_body={**QUICK, **(extra or {})})


def finished(client: openai.OpenAI, video: Any) -> Any:
    done = client.videos.poll(video.id, poll_interval_ms=20)
    assert done.status == "completed", done.error
    return done


def file_of(client: openai.OpenAI, video: Any, variant: Any = "video") -> bytes:
    return client.videos.download_content(video.id, variant=variant).read()


def frames_in(file: bytes) -> np.ndarray:
    with av.open(io.BytesIO(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def png(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (96, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "png")
    return out.getvalue()


def test_create_and_poll_gives_a_video_that_downloads_and_plays(client: openai.OpenAI) -> None:
    video: Any = client.videos.create_and_poll(
        prompt="a red heart",
        size=SIZE,  # type: ignore[arg-type]
        extra_body={"seed": 7, "guidance_scale": 2.5, "fps": 8, **QUICK},
    )
    assert (video.object, video.status, video.progress, video.error) == (
        "video", "completed", 100, None,
    )  # fmt: skip
    assert (video.size, video.seconds, video.prompt) == (SIZE, "0.62", "a red heart")
    assert (video.seed, video.num_frames, video.fps) == (7, 5, 8)
    assert abs(video.created_at - time.time()) < 60
    assert video.created_at <= video.completed_at
    assert video.expires_at is None
    file = file_of(client, video)
    assert frames_in(file).shape == (5, 64, 96, 3)
    params = read_parameters(file).params
    assert (params.seed, params.guidance_scale, params.fps) == (7, 2.5, 8)


def test_seconds_become_as_many_frames_as_the_model_can_make(client: openai.OpenAI) -> None:
    extra = {"num_frames": None, "fps": 8, "num_inference_steps": 1}
    body = {"prompt": "a", "size": SIZE, "seconds": "1", **extra}
    reply: Any = client.post("/videos", body=body, cast_to=object)
    assert (reply["seconds"], reply["num_frames"], reply["fps"]) == ("1", 9, 8)
    client.videos.delete(reply["id"])


@pytest.mark.parametrize(
    ("seconds", "fps", "multiple", "frames"),
    [(5, 16, 4, 81), (4, 24, 4, 97), (0.01, 16, 4, 1), (4, 24, 8, 97), (2, 8, 1, 16)],
)
def test_frames_are_those_nearest_to_the_seconds(
    seconds: float, fps: int, multiple: int, frames: int
) -> None:
    assert frames_of(seconds, fps, multiple) == frames


def test_a_form_and_json_make_the_same_video(client: openai.OpenAI) -> None:
    fields = {"seed": 3, "guidance_scale": 1.5, "negative_prompt": "blue", "fps": 8}
    # One after the other: side by side they might share some of their evaluations.
    first = file_of(client, finished(client, create(client, extra=fields)))
    body = {"prompt": "a red heart", "size": SIZE, **QUICK, **fields}
    by_json: Any = client.post("/videos", body=body, cast_to=openai.types.Video)
    second = file_of(client, finished(client, by_json))
    assert np.array_equal(frames_in(first), frames_in(second))
    assert read_parameters(first) == read_parameters(second)


def test_a_picture_is_the_first_frame_as_file_and_as_data_url(client: openai.OpenAI) -> None:
    given = png()
    # One after the other, as above.
    by_file = finished(client, create(client, input_reference=given, extra={"seed": 1}))
    link = "data:image/png;base64," + base64.b64encode(given).decode()
    body = {"prompt": "a red heart", "size": SIZE, "seed": 1, **QUICK}
    by_link: Any = client.post(
        "/videos",
        body={**body, "input_reference": {"image_url": link}},
        cast_to=openai.types.Video,
    )
    first, second = (
        frames_in(file_of(client, video)) for video in (by_file, finished(client, by_link))
    )
    assert np.array_equal(first, second)
    without = frames_in(file_of(client, finished(client, create(client, extra={"seed": 1}))))
    assert not np.array_equal(first, without)


def test_the_list_has_pages_in_both_orders(client: openai.OpenAI) -> None:
    for video in client.videos.list():
        client.videos.delete(video.id)
    videos = [create(client, extra={"num_inference_steps": 1}) for _ in range(5)]
    made = [video.id for video in videos]
    pages = list(client.videos.list(limit=2, order="asc").iter_pages())
    assert [[video.id for video in page.data] for page in pages] == [
        made[:2], made[2:4], made[4:],
    ]  # fmt: skip
    assert [video.id for video in client.videos.list(limit=2)] == made[::-1]
    raw: Any = client.get("/videos?limit=2", cast_to=object)
    assert (raw["object"], raw["first_id"], raw["last_id"], raw["has_more"]) == (
        "list", made[4], made[3], True,
    )  # fmt: skip
    last: Any = client.get(f"/videos?after={made[0]}", cast_to=object)
    assert (last["data"], last["first_id"], last["has_more"]) == ([], None, False)
    for video in videos:
        finished(client, video)


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("limit=-1", 400, "limit"), ("order=up", 400, "order")],
)
def test_a_bad_page_is_refused(url: str, query: str, status: int, param: str) -> None:
    reply = httpx2.get(f"{url}{VIDEOS}?{query}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


def test_delete_ends_the_work_within_a_step(client: openai.OpenAI, engine: EngineProcess) -> None:
    # It would take far longer than is waited for its end.
    video = create(client, extra=LONG, size="256x256")
    assert eventually(lambda: client.videos.retrieve(video.id).progress > 0, 120)
    gone = client.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    assert eventually(lambda: engine.client.health().running == 0, 10)
    for call in (client.videos.retrieve, client.videos.delete, client.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            call(video.id)


def test_progress_and_eta_come_from_the_engine(client: openai.OpenAI) -> None:
    running = create(client, extra=LONG)
    waiting = create(client, extra=LONG)
    seen = []
    while len(seen) < 3:
        reply = client.videos.with_raw_response.retrieve(running.id)
        video: Any = reply.parse()
        if video.progress not in seen:
            seen.append(video.progress)
    assert seen == sorted(seen)
    assert 0 < video.progress < 100
    assert (video.status, video.queue_position) == ("in_progress", 0)
    assert video.eta_s > 0
    assert int(reply.headers["openai-poll-after-ms"]) == poll_after_ms(video.eta_s)
    for video in (waiting, running):
        client.videos.delete(video.id)


def test_the_interval_of_polling_is_a_part_of_what_is_left() -> None:
    assert [poll_after_ms(eta) for eta in (None, 0.0, 30.0, 3600.0)] == [1000, 200, 3000, 10_000]


def test_each_variant_is_a_file_of_its_kind(client: openai.OpenAI, url: str) -> None:
    video = finished(client, create(client))
    kinds = {}
    for variant in ("thumbnail", "spritesheet"):
        with Image.open(io.BytesIO(file_of(client, video, variant))) as picture:
            kinds[variant] = (picture.format, picture.size)
    assert kinds == {"thumbnail": ("WEBP", (96, 64)), "spritesheet": ("JPEG", (288, 128))}
    content = f"{url}{VIDEOS}/{video.id}/content"
    part = httpx2.get(content, headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["content-type"] == "video/mp4"
    wrong = httpx2.get(f"{content}?variant=poster")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "variant")


def test_content_of_a_video_that_is_not_ready_is_not_found(client: openai.OpenAI) -> None:
    video = create(client, extra=LONG)
    with pytest.raises(openai.NotFoundError, match="not ready"):
        file_of(client, video)
    with pytest.raises(openai.NotFoundError, match="not ready"):
        client.videos.remix(video.id, prompt="a star")
    client.videos.delete(video.id)


def test_a_remix_differs_in_its_prompt_only(client: openai.OpenAI) -> None:
    source = finished(client, create(client, input_reference=png(), extra={"seed": 11}))
    remix = finished(client, client.videos.remix(source.id, prompt="a blue star"))
    assert remix.remixed_from_video_id == source.id
    assert (remix.prompt, remix.seed, remix.size) == ("a blue star", 11, source.size)
    first, second = (frames_in(file_of(client, video)).astype(int) for video in (source, remix))
    assert np.abs(first[0] - second[0]).mean() < np.abs(first - second)[1:].mean() + 8
    assert not np.array_equal(first, second)


def test_sync_answers_with_the_video(client: openai.OpenAI, url: str) -> None:
    body = {"prompt": "a red heart", "size": SIZE, "seed": 7, **QUICK}
    reply = httpx2.post(f"{url}{VIDEOS}/sync", json=body, timeout=60)
    assert reply.headers["content-type"] == "video/mp4"
    job = finished(client, create(client, extra={"seed": 7}))
    assert np.array_equal(frames_in(reply.content), frames_in(file_of(client, job)))


def test_hanging_up_ends_the_work_on_a_video(url: str, engine: EngineProcess) -> None:
    # It would take far longer than is waited for its end.
    body = json.dumps({"prompt": "a red heart", **LONG, "size": "256x256"}).encode()
    head = (
        f"POST {VIDEOS}/sync HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(address_of(url), timeout=30) as raw:
        raw.sendall(head.encode() + body)
        assert eventually(lambda: engine.client.health().running == 1)
    assert eventually(lambda: engine.client.health().running == 0, 10)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "100x64"}, "size"),
        ({"seconds": "soon"}, "seconds"),
        ({"seconds": "-1"}, "seconds"),
        ({"seconds": "9000", "extra": {"num_frames": None}}, "seconds"),
        ({"extra": {"num_frames": 6}}, "num_frames"),
        ({"extra": {"fps": "x"}}, "fps"),
        ({"extra": {"n": 2}}, "n"),
        ({"extra": {"strength": 1.5}}, "strength"),
        ({"input_reference": b"no picture"}, "input_reference"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_field(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("reference", [{"file_id": "file-1"}, {"image_url": "http://a/b.png"}, 7])
def test_a_picture_that_is_not_sent_itself_is_refused(url: str, reference: object) -> None:
    body = {"prompt": "a", "input_reference": reference}
    reply = httpx2.post(f"{url}{VIDEOS}", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input_reference")


@pytest.mark.parametrize("route", ["edits", "extensions", "characters"])
def test_what_no_model_does_is_refused_with_the_reason(url: str, route: str) -> None:
    files = {"video": ("upload", b"\0" * 1000)}
    reply = httpx2.post(f"{url}{VIDEOS}/{route}", data={"prompt": "a"}, files=files)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    assert httpx2.get(f"{url}{VIDEOS}/characters/one").status_code == 404


def test_a_model_of_pictures_is_no_model_of_videos() -> None:
    app = app_with(model=MODEL, ends=QueueFull("full"))
    for path in (VIDEOS, f"{VIDEOS}/sync", f"{VIDEOS}/edits"):
        reply = ask(app, "POST", path, json={"prompt": "a"})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "model")
    assert "makes images" in error["message"]


def test_a_request_sent_again_under_its_key_is_the_same_job(client: openai.OpenAI) -> None:
    def send(prompt: str) -> Any:
        header = {"idempotency-key": "one"}
        return client.videos.create(prompt=prompt, extra_body=QUICK, extra_headers=header)

    first = send("a heart")
    assert send("a heart").id == first.id
    with pytest.raises(openai.ConflictError):
        send("a star")
    client.videos.delete(first.id)


def test_what_has_no_effect_is_told(client: openai.OpenAI) -> None:
    video = create(client, model="sora-2", extra={"sharpness": 1})
    assert "sharpness" in texts(video.warnings)[0]
    client.videos.delete(video.id)


def test_the_video_of_another_key_is_not_found(engine: EngineProcess, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("anne: key-of-anne\nbob: key-of-bob\n")
    with serving(app_over(engine.client, api_keys_file=str(keys))) as url:
        anne, bob = (
            httpx2.Client(base_url=url, headers={"authorization": f"Bearer key-of-{name}"})
            for name in ("anne", "bob")
        )
        with anne, bob:
            body = {"prompt": "a", "size": SIZE, **LONG}
            path = f"{VIDEOS}/{anne.post(VIDEOS, json=body).json()['id']}"
            refused = [bob.request(*call) for call in _everything(path)]
            assert {reply.status_code for reply in refused} == {404}
            assert (len(anne.get(VIDEOS).json()["data"]), bob.get(VIDEOS).json()["data"]) == (1, [])
            assert anne.delete(path).json()["deleted"]


def _everything(path: str) -> list[tuple[str, str]]:
    return [("GET", path), ("GET", f"{path}/content"), ("DELETE", path)]


def test_an_expired_video_is_gone_and_still_known(engine: EngineProcess) -> None:
    with serving(app_over(engine.client, result_ttl=0.0)) as url:
        body = {"prompt": "a", "size": SIZE, **QUICK}
        video = f"{url}{VIDEOS}/{httpx2.post(f'{url}{VIDEOS}', json=body).json()['id']}"
        assert eventually(lambda: httpx2.get(video).json()["status"] == "completed", 30)
        reply = httpx2.get(f"{video}/content")
        assert (reply.status_code, reply.json()["error"]["code"]) == (410, "expired")


def test_a_server_started_again_makes_the_same_video(engine: EngineProcess, tmp_path: Path) -> None:
    async def server(job: str | None) -> tuple[str, bytes]:
        """A server that is stopped as soon as it has accepted a job; one that finishes `job`."""
        args = ServerArgs()
        service = Service.over(engine.client, args)
        jobs = Jobs.in_folder(tmp_path, service, args)
        transport = httpx2.ASGITransport(create_app(service, jobs, args))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            if job is None:
                form = {"prompt": "a", "size": SIZE, "num_frames": "5", "seed": "5"}
                picture = {"input_reference": png()}
                reply = await client.post(VIDEOS, data=form, files=picture)
                job, file = reply.json()["id"], b""
            else:
                await jobs.resume()
                async with asyncio.timeout(120):
                    while (await client.get(f"{VIDEOS}/{job}")).json()["status"] != "completed":
                        await asyncio.sleep(0.02)
                file = (await client.get(f"{VIDEOS}/{job}/content")).content
        await service.drain(0)
        service.stop()
        await jobs.close()
        return job, file

    job, _ = asyncio.run(server(None))
    # Both servers are clients of the same engine here, which knows requests by their ids.
    assert eventually(lambda: requests_in(engine) == 0)
    _, file = asyncio.run(server(job))
    params = read_parameters(file).params
    assert params.seed == 5
    with serving(app_over(engine.client)) as url:
        form = {"prompt": "a", "size": SIZE, "num_frames": "5", "seed": "5"}
        undisturbed = httpx2.post(
            f"{url}{VIDEOS}/sync", data=form, files={"input_reference": png()}, timeout=60
        )
    assert np.array_equal(frames_in(file), frames_in(undisturbed.content))


def test_the_schema_names_the_fields_of_a_video(url: str) -> None:
    schema = json.loads(httpx2.get(f"{url}/openapi.json").content)
    body = schema["paths"][VIDEOS]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json"} == body.keys()
    for kind in body.values():
        assert {"prompt", "seconds", "size", "input_reference"} <= kind["schema"][
            "properties"
        ].keys()
