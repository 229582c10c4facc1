"""Routes of single results: stars, deletion, a zip of many, search, and the space that is left."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from http_serving import eventually
from playground_server import Server

from multimodal_gen.entrypoints.http.jobs.archive import zipped

KEYS = {"anne": "anne-key", "bob": "bob-key"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "keys.yaml").write_text(json.dumps(KEYS))
    server = Server(folder, api_keys_file=str(folder / "keys.yaml"))
    yield server
    server.stop()


def call(server: Server, method: str, path: str, key: str = "anne", **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}-key"}
    return httpx2.request(method, server.url + path, headers=headers, timeout=30, **more)


def made(server: Server, prompt: str, n: int = 1, **more: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "n": n, "seed": 7, "run_in_background": True, **more}
    accepted = call(server, "POST", "/v1/images/generations", json=body)
    assert accepted.status_code == 202, accepted.text
    assert server.has(prompt, n)
    server.finish(prompt)
    path = f"/v1/jobs/{accepted.json()['id']}"
    assert eventually(lambda: call(server, "GET", path).json()["status"] == "completed")
    job: dict[str, Any] = call(server, "GET", path).json()
    return job


def outputs(job: dict[str, Any]) -> str:
    return f"/v1/jobs/{job['id']}/outputs"


def test_an_output_is_starred_and_found(server: Server) -> None:
    job = made(server, "to be starred", 2)
    assert [output["starred"] for output in job["outputs"]] == [False, False]
    now = call(server, "POST", f"{outputs(job)}/1", json={"starred": True}).json()
    assert [output["starred"] for output in now["outputs"]] == [False, True]
    found = call(server, "GET", "/v1/jobs?starred=true").json()["data"]
    assert [each["id"] for each in found] == [job["id"]]
    call(server, "POST", f"{outputs(job)}/1", json={"starred": False})
    assert not call(server, "GET", "/v1/jobs?starred=true").json()["data"]


def test_jobs_are_searched_for(server: Server) -> None:
    job = made(server, "A Lighthouse at Dusk")
    other = made(server, "a lighthouse at noon")

    def found(query: str) -> list[str]:
        data = call(server, "GET", f"/v1/jobs?{query}").json()["data"]
        return [each["id"] for each in data]

    assert found("search=LIGHTHOUSE") == [other["id"], job["id"]]
    assert found("search=dusk+light") == [job["id"]]
    assert found("search=lighthouse&model=none") == []
    assert found(f"search=lighthouse&created_after={job['created_at'] - 5}&limit=1") == [
        other["id"]
    ]
    assert found(f"search=lighthouse&created_before={job['created_at'] - 5}") == []
    assert call(server, "GET", f"/v1/jobs?search={'a' * 1001}").status_code == 400


@pytest.mark.parametrize("query", ["created_after=nan", "created_before=inf", "search=a%00b"])
def test_what_cannot_be_searched_for_is_refused(server: Server, query: str) -> None:
    assert call(server, "GET", f"/v1/jobs?{query}").status_code == 400


def test_an_output_is_deleted_alone(server: Server) -> None:
    job = made(server, "three of them", 3)
    reply = call(server, "DELETE", f"{outputs(job)}/0").json()
    assert (reply["deleted"], reply["job_deleted"], reply["index"]) == (True, False, 0)
    assert httpx2.get(job["outputs"][0]["url"]).status_code == 410
    assert httpx2.get(job["outputs"][1]["url"]).status_code == 200
    now = call(server, "GET", f"/v1/jobs/{job['id']}").json()
    assert [output["deleted"] for output in now["outputs"]] == [True, False, False]
    assert [output["url"] is None for output in now["outputs"]] == [True, False, False]
    picture_job = call(server, "GET", f"/v1/images/jobs/{job['id']}").json()
    assert [each["seed"] for each in picture_job["data"]] == [8, 9]
    for index in (1, 2):
        reply = call(server, "DELETE", f"{outputs(job)}/{index}").json()
    assert reply["job_deleted"]
    assert call(server, "GET", f"/v1/jobs/{job['id']}").status_code == 404


@pytest.mark.parametrize("index", [0, 1, -1])
def test_nobody_changes_what_is_not_theirs_or_not_there(server: Server, index: int) -> None:
    job = made(server, f"only one {index}")
    key = "bob" if index == 0 else "anne"
    path = f"{outputs(job)}/{index}"
    assert call(server, "POST", path, key, json={"starred": True}).status_code == 404
    assert call(server, "DELETE", path, key).status_code == 404
    named = {"outputs": [{"job": job["id"], "index": index}]}
    packed = call(server, "POST", "/v1/jobs/zip", key, json=named)
    assert packed.status_code == (400 if index < 0 else 404)
    assert call(server, "GET", f"/v1/jobs/{job['id']}").json()["outputs"][0]["url"]


def test_results_are_packed_under_their_own_names(server: Server) -> None:
    one, two = made(server, "Ein Apfel, größer!", 2), made(server, "Ein Apfel, größer!")
    wanted = [
        {"job": one["id"], "index": 1},
        {"job": one["id"]},
        {"job": two["id"], "index": 0},
    ]
    twice = {"outputs": [*wanted, wanted[0]]}
    reply = call(server, "POST", "/v1/jobs/zip", json=twice)
    assert reply.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    assert archive.testzip() is None
    assert all(entry.date_time[0] > 1980 for entry in archive.infolist())
    stem = "ein-apfel-größer"
    assert archive.namelist() == [f"{stem}-8.png", f"{stem}-7.png", f"{stem}-7-2.png"]
    assert one["outputs"][1]["file_name"] == f"{stem}-8.png"
    assert archive.read(f"{stem}-8.png") == httpx2.get(one["outputs"][1]["url"]).content


def test_a_zip_is_made_while_it_is_sent() -> None:
    opened = []

    class Long(io.RawIOBase):
        left = 40

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return bytes(size) if self.left >= 0 else b""

    def files() -> Iterator[tuple[str, Any]]:
        for name in "abc":
            opened.append(name)
            yield name, Long()

    parts = zipped(files())
    largest = max(len(next(parts)) for _ in range(40))
    assert opened == ["a"]
    assert largest < 2 << 20
    parts.close()  # type: ignore[attr-defined]


def test_space_and_what_goes_next_are_told(server: Server) -> None:
    jobs = [made(server, f"fills the space {number}") for number in range(3)]
    now = call(server, "GET", "/v1/jobs/storage").json()
    assert (now["nearly_full"], now["next"], now["expires_after_s"]) == (False, [], None)
    assert now["quota_bytes"] == 20 * 10**9
    assert call(server, "GET", "/v1/jobs/storage", "bob").json()["used_bytes"] == 0
    server.jobs.results._quota = now["used_bytes"]  # type: ignore[attr-defined]
    try:
        full = call(server, "GET", "/v1/jobs/storage").json()
    finally:
        server.jobs.results._quota = now["quota_bytes"]  # type: ignore[attr-defined]
    assert full["nearly_full"]
    assert full["next"]
    assert jobs[-1]["id"] not in {each["job"] for each in full["next"]}


def test_stars_and_deletions_of_one_client_reach_its_others(server: Server) -> None:
    job = made(server, "seen in two windows", 2)

    def events(key: str) -> Iterator[dict[str, Any]]:
        headers = {"authorization": f"Bearer {key}-key"}
        with httpx2.stream("GET", f"{server.url}/v1/jobs/events", headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    mine = events("anne")
    assert next(mine)["type"] == "server"
    call(server, "POST", f"{outputs(job)}/0", json={"starred": True})
    starred = next(mine)
    assert (starred["type"], starred["job"]["outputs"][0]["starred"]) == ("job", True)
    call(server, "DELETE", f"{outputs(job)}/0")
    assert next(mine)["job"]["outputs"][0]["deleted"]
    others = events("bob")
    assert next(others)["type"] == "server"
    call(server, "DELETE", f"/v1/jobs/{job['id']}")
    assert next(mine) == {"type": "job.deleted", "id": job["id"]}
    body = {"prompt": "bob's", "run_in_background": True}
    assert call(server, "POST", "/v1/images/generations", "bob", json=body).status_code == 202
    seen = next(others)
    while seen["type"] == "server":
        seen = next(others)
    assert seen["type"] == "job"  # and nothing of what anne deleted
    server.finish("bob's")


def test_large_pictures_have_small_ones_for_lists(tmp_path: Path) -> None:
    import numpy as np

    from multimodal_gen.client.request_handle import Output
    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.request import Req
    from multimodal_gen.serving.records import JobRecord, JobRequest
    from multimodal_gen.serving.rendering import render

    def files(side: int, suffix: str = ".png") -> dict[str, bytes]:
        req = Req(id="r", params=SamplingParams(prompt="a", width=side, height=side))
        request = JobRequest([req], {"suffix": suffix})
        record = JobRecord(id="a0", kind="image", owner="", model="m", request=request)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (1, side, side, 3), np.uint8)
        return render(record, [Output("r", pixels, 1, None, {}, [])])

    assert [*files(256)] == ["a0-0.png"]
    for suffix in (".png", ".webp"):
        large = files(1024, suffix)
        assert [*large] == [f"a0-0{suffix}", "a0-0.thumbnail.webp"]
        assert len(large["a0-0.thumbnail.webp"]) * 4 < len(large[f"a0-0{suffix}"])
