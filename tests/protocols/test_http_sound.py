"""Sound of a video reaches clients of each protocol, and outlives the server that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from comfyui_client import default_graph, node
from fake_engine import FakeEngine
from http_serving import VIDEO_MODEL, app_over, eventually, serving
from job_service import ANNE, JobService
from PIL import Image
from sounds import chirp, likeness, sound_in
from told import texts

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.sound import Sound

MODEL = msgspec.structs.replace(VIDEO_MODEL, sound=True)
SOUND = chirp(9 / 8, 16_000)
DESCRIBED = {"rate": 16_000, "channels": 2, "samples": 18_000}
BODY = {"prompt": "a bell", "num_frames": 9, "fps": 8}


class SoundEngine(FakeEngine):
    """Ends every request at once, with nine frames and sound."""

    def __init__(self) -> None:
        super().__init__(MODEL)
        self.frames, self.sound = 9, SOUND

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app_over(SoundEngine())) as url:  # type: ignore[arg-type]
        yield url


def is_theirs(sound: Sound) -> bool:
    return sound.rate == SOUND.rate and likeness(sound.samples, SOUND.samples) > 0.99


def when_done(url: str) -> Any:
    assert eventually(lambda: httpx2.get(url).json()["status"] == "completed")
    return httpx2.get(url).json()


def test_a_video_has_its_sound_at_once_or_as_a_job(url: str) -> None:
    now = httpx2.post(f"{url}/v1/videos/sync", json=BODY).raise_for_status()
    assert is_theirs(sound_in(now.content))
    job = httpx2.post(f"{url}/v1/videos", json=BODY).raise_for_status().json()
    assert job["audio"] is None
    done = when_done(f"{url}/v1/videos/{job['id']}")
    assert (done["audio"], done["seconds"]) == (DESCRIBED, "1.12")
    assert is_theirs(sound_in(httpx2.get(f"{url}/v1/videos/{job['id']}/content").content))
    described = httpx2.get(f"{url}/v1/jobs/{job['id']}").json()
    assert described["audio"] == DESCRIBED
    assert is_theirs(sound_in(httpx2.get(described["outputs"][0]["url"]).content))


def test_a_thumbnail_is_of_the_pictures(url: str) -> None:
    job = httpx2.post(f"{url}/v1/videos", json=BODY).raise_for_status().json()
    when_done(f"{url}/v1/videos/{job['id']}")
    for variant in ("thumbnail", "spritesheet"):
        reply = httpx2.get(f"{url}/v1/videos/{job['id']}/content", params={"variant": variant})
        with Image.open(reply.raise_for_status()) as picture:  # type: ignore[arg-type]
            assert picture.width >= 8


def test_a_models_entry_says_whether_it_makes_sound(url: str) -> None:
    assert httpx2.get(f"{url}/v1/models").json()["data"][0]["sound"] is True


def made_by_graph(url: str, saved: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The place of a graph's file, and the warnings about it."""
    graph = {**default_graph("a bell"), "9": saved}
    graph["5"] = node("EmptyHunyuanLatentVideo", width=96, height=64, length=9, batch_size=1)
    prompt = httpx2.post(f"{url}/prompt", json={"prompt": graph}).raise_for_status().json()
    history = f"{url}/history/{prompt['prompt_id']}"
    assert eventually(lambda: bool(httpx2.get(history).json()))
    entry = httpx2.get(history).json()[prompt["prompt_id"]]
    said = dict(entry["status"]["messages"])["execution_success"].get("warnings", [])
    return next(iter(entry["outputs"]["9"].values()))[0], said


def combined(format: str) -> dict[str, Any]:
    return node(
        "VHS_VideoCombine",
        images=["8", 0],
        frame_rate=8,
        loop_count=0,
        filename_prefix="bell",
        format=format,
        pingpong=False,
        save_output=True,
    )


def test_a_graphs_video_has_the_sound(url: str) -> None:
    place, warnings = made_by_graph(url, combined("video/h264-mp4"))
    assert is_theirs(sound_in(httpx2.get(f"{url}/view", params=place).content))
    assert not any("sound" in warning for warning in texts(warnings))


def test_a_graphs_gif_has_none_and_says_so(url: str) -> None:
    _, warnings = made_by_graph(url, combined("image/gif"))
    assert (
        texts(warnings)[-1] == "the sound is left out, as a .gif file has none: use .mp4 to keep it"
    )


def test_sound_is_kept_for_the_next_server(tmp_path: Path) -> None:
    async def test() -> None:
        first = JobService(tmp_path)
        await first.up()
        first.engine.frames, first.engine.sound = 9, SOUND
        record = await first.submit("a bell", meta={"suffix": ".mp4"})
        first.engine.finish("a bell")
        await first.jobs.finished(record.id, ANNE)
        await first.stop()
        following = JobService(tmp_path)
        await following.up()
        known = await following.jobs.get(record.id, ANNE)
        assert known.meta["audio"] == {**DESCRIBED}
        file = await asyncio.to_thread(following.jobs.results.read, known.files[0], ANNE.name)
        assert sound_in(file).rate == SOUND.rate
        await following.stop()

    asyncio.run(test())
