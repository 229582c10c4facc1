"""Pictures as files: raw, zipped, behind links that expire, and of jobs in the background."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from http_serving import IMAGES, eventually, serving
from openai_client import decoded, encoded, file_of
from PIL import Image

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service

JOBS = "/v1/images/jobs/"
BODY = {"prompt": "a red heart", "size": "64x64", "seed": 5, "num_inference_steps": 2}


def post(url: str, path: str = IMAGES, **given: Any) -> httpx2.Response:
    return httpx2.post(url + path, json={**BODY, **given}, timeout=60)


def test_a_file_is_the_picture_itself(url: str, client: openai.OpenAI) -> None:
    response = post(url, response_format="file", output_format="webp")
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["x-seeds"] == "5"
    assert decoded(response.content).shape == (64, 64, 3)


def test_several_files_are_a_zip(url: str) -> None:
    response = post(url, response_format="file", n=2)
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["x-seeds"] == "5,6"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == ["0.png", "1.png"]
        assert decoded(archive.read("1.png")).shape == (64, 64, 3)


def test_a_url_leads_to_the_picture(url: str, client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"prompt": "a red heart", "size": "64x64", "n": 2}
    extra = {"seed": 5, "num_inference_steps": 2}
    linked = client.images.generate(response_format="url", extra_body=extra, **given)
    inside = client.images.generate(response_format="b64_json", extra_body=extra, **given)
    for link, image in zip(linked.data, inside.data, strict=True):
        assert link.b64_json is None
        assert link.url.startswith(url + "/files/")
        assert link.expires_at > time.time()
        response = httpx2.get(link.url)
        assert response.headers["content-type"] == "image/png"
        # The two may have been batched differently.
        apart = decoded(response.content).astype(int) - decoded(file_of(image))
        assert np.abs(apart).max() <= 1


def test_a_link_can_not_be_guessed(url: str) -> None:
    link = post(url, response_format="url").json()["data"][0]["url"]
    token, name = link.rsplit("/", 2)[1:]
    for wrong in (
        f"/files/{'0' * len(token)}/{name}",
        f"/files/{token}/{'0' * 32}.png",
        f"/files/{token}/..%2Fsecret",
        f"/files/{token}/%00",
        f"/files/%F0%9F%98%80/{name}",
    ):
        response = httpx2.get(url + wrong)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_a_link_needs_no_key_and_expires(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.wait_ready(90)
    args = ServerArgs(api_key="secret", result_ttl=3600)
    service = Service.over(engine.client, args)
    jobs = Jobs.in_folder(tmp_path, service, args)
    headers = {"authorization": "Bearer secret"}
    with serving(create_app(service, jobs, args)) as url:
        body = {**BODY, "response_format": "url"}
        reply = httpx2.post(url + IMAGES, json=body, headers=headers, timeout=60)
        link = reply.json()["data"][0]["url"]
        assert httpx2.get(link).status_code == 200
        monkeypatch.setattr(jobs.results, "_clock", lambda: time.time() + 3600)
        expired = httpx2.get(link)
        assert (expired.status_code, expired.json()["error"]["code"]) == (410, "expired")


def test_pictures_are_made_in_the_background(url: str) -> None:
    accepted = post(url, run_in_background=True, n=2, output_format="jpeg", sharpness=1)
    assert accepted.status_code == 202
    assert accepted.headers["openai-poll-after-ms"]
    job = accepted.json()
    assert (job["object"], job["error"], len(job["warnings"])) == ("image.job", None, 1)

    def now() -> Any:
        return httpx2.get(url + JOBS + job["id"]).json()

    assert eventually(lambda: now()["status"] == "completed", 30)
    done = now()
    assert (done["progress"], [each["seed"] for each in done["data"]]) == (100, [5, 6])
    assert done["completed_at"] >= done["created_at"]
    assert done["expires_at"] is None
    first = httpx2.get(done["data"][0]["url"])
    assert first.headers["content-type"] == "image/jpeg"
    assert httpx2.delete(url + JOBS + job["id"]).json()["deleted"]
    assert httpx2.get(url + JOBS + job["id"]).status_code == 404
    assert httpx2.get(done["data"][0]["url"]).status_code == 410


def test_a_job_heeds_the_compression_asked_for(url: str) -> None:
    def size(compression: int) -> int:
        given = {"output_format": "jpeg", "output_compression": compression}
        where = url + JOBS + post(url, run_in_background=True, **given).json()["id"]
        assert eventually(lambda: httpx2.get(where).json()["status"] == "completed", 30)
        return len(httpx2.get(httpx2.get(where).json()["data"][0]["url"]).content)

    assert size(100) > size(5)


def test_a_key_makes_the_same_job_of_the_same_request(url: str) -> None:
    def submit(**given: Any) -> httpx2.Response:
        body = {**BODY, "run_in_background": True, **given}
        headers = {"idempotency-key": f"a key {os.getpid()}"}
        return httpx2.post(url + IMAGES, json=body, headers=headers, timeout=60)

    first, again, other = submit(), submit(), submit(seed=6)
    assert first.json()["id"] == again.json()["id"]
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_an_edit_is_made_in_the_background_too(url: str) -> None:
    picture = encoded(Image.new("RGB", (64, 64), "navy"))
    data = {**{name: str(value) for name, value in BODY.items()}, "run_in_background": "true"}
    files = {"image": picture}
    job = httpx2.post(url + "/v1/images/edits", data=data, files=files, timeout=60).json()
    where = url + JOBS + job["id"]
    assert eventually(lambda: httpx2.get(where).json()["status"] == "completed", 30)


def test_deleting_a_job_ends_its_work(url: str, engine: EngineProcess) -> None:
    # It would take far longer than is waited for its end.
    job = post(url, run_in_background=True, num_inference_steps=1000, size="128x128").json()
    assert eventually(lambda: engine.client.health().running == 1)
    assert httpx2.delete(url + JOBS + job["id"], timeout=30).is_success
    assert eventually(lambda: engine.client.health().running == 0, 10)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"stream": True}, "run_in_background"),
        ({"response_format": "b64_json"}, "response_format"),
        ({"response_format": "file"}, "response_format"),
        ({"size": "63x64"}, "size"),
    ],
)
def test_what_a_job_can_not_be_is_refused(url: str, given: dict[str, Any], param: str) -> None:
    response = post(url, run_in_background=True, **given)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_an_unknown_job_is_not_found(url: str) -> None:
    response = httpx2.get(url + JOBS + "nothing")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
