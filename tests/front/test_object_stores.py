"""Results and input images in an object store, which many fronts share."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from http_serving import ask
from job_service import ANNE, INPUTS, PICTURE, JobService, same
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.errors import Expired, InvalidRequest, NotFound, StorageUnavailable
from multimodal_gen.messages.pictures import headers_of
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.records import JobRecord, JobRequest
from multimodal_gen.serving.storage import object_spool
from multimodal_gen.serving.storage import objects as objects_module
from multimodal_gen.serving.storage.object_results import ObjectResults
from multimodal_gen.serving.storage.object_spool import ObjectSpool
from multimodal_gen.serving.storage.objects import Objects

SECRET = b"s" * 32


@pytest.fixture(params=["memory", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "memory":
        return Objects(MemoryStore())
    return Objects.at(f"file://{tmp_path}/objects")


def results(objects: Objects, **limits: float) -> ObjectResults:
    return ObjectResults(objects, SECRET, **limits)


def content(location: Any) -> bytes:
    return location.read_bytes() if isinstance(location, Path) else location


def test_a_file_is_found_by_its_owner_and_by_its_link_on_every_front(objects: Objects) -> None:
    name = results(objects).add(b"data", ".png", "anne")
    other = results(objects)
    assert other.read(name, "anne") == content(other.locate(name, "anne")) == b"data"
    _, files, token, linked = other.link(name, "anne").split("/")
    assert (files, linked) == ("files", name)
    assert content(other.linked(token, name)) == b"data"
    with pytest.raises(Expired):
        other.read(name, "bob")
    for wrong in ("", "0" * len(token), token[16:], "é", token.upper()):
        with pytest.raises(NotFound):
            other.linked(wrong, name)
    with pytest.raises(NotFound):
        other.linked(token, "other.png")
    with pytest.raises(NotFound):
        ObjectResults(objects, b"another secret").linked(token, name)


def test_a_name_is_written_once(objects: Objects) -> None:
    kept = results(objects)
    kept.write("a.png", b"first")
    results(objects).write("a.png", b"second")
    assert kept.read("a.png") == b"first"
    kept.write("a.png", b"of another", "anne")
    assert kept.read("a.png") == b"first"


def test_what_is_removed_has_expired(objects: Objects) -> None:
    kept = results(objects)
    kept.write("a.png", b"data")
    kept.remove("a.png")
    kept.remove("a.png")
    for ask_for in (kept.read, kept.locate):
        with pytest.raises(Expired):
            ask_for("a.png")


@pytest.mark.parametrize("name", ["", "../secret", "a/b", ".hidden", "a\0", "a\n", "a" * 300])
def test_names_can_not_leave_the_store(objects: Objects, name: str) -> None:
    kept = results(objects)
    for use in (kept.read, kept.locate, kept.remove, kept.link):
        with pytest.raises(NotFound):
            use(name)


def test_old_files_are_swept_and_each_owners_oldest_beyond_the_quota(tmp_path: Path) -> None:
    objects = Objects.at(f"file://{tmp_path}")
    kept = results(objects, ttl_s=1000, quota_gb=25e-9)
    now = time.time()
    for owner in ("anne", "bob"):
        for age in range(4):
            kept.write(f"{age}.png", bytes(10), owner)
            path = kept.locate(f"{age}.png", owner)
            os.utime(str(path), (now - age, now - age))
    kept.write("old.png", b"x", "carl")
    os.utime(str(kept.locate("old.png", "carl")), (now - 2000, now - 2000))
    kept.sweep()
    left = {(path.parent.name, path.name) for path in (tmp_path / "results").rglob("*.png")}
    assert len(left) == 4
    assert {name for _, name in left} == {"0.png", "1.png"}
    with pytest.raises(Expired):
        kept.read("old.png", "carl")


def test_the_store_is_not_listed_each_minute(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = results(objects)
    kept.sweep()
    monkeypatch.setattr(Objects, "list", lambda *_: pytest.fail("the store was listed"))
    kept.sweep()


def job_with_pictures() -> JobRecord:
    req = Req(id="r", params=SamplingParams(prompt="a"), pictures=headers_of(INPUTS))
    return JobRecord(
        id="0" * 32, kind="image", owner="anne", model="model", request=JobRequest([req])
    )


def test_input_images_are_kept_until_their_job_ends(objects: Objects) -> None:
    record = job_with_pictures()
    req = record.request.requests[0]
    ObjectSpool(objects).write(record.id, INPUTS)
    spool = ObjectSpool(objects)
    assert same([*spool.read(record.id, req).values()], INPUTS)
    spool.remove(record)
    assert not [*objects.list("pictures")]
    with pytest.raises(FileNotFoundError):
        spool.read(record.id, req)


def test_images_of_unknown_jobs_are_removed_once_they_are_old(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, spool = job_with_pictures(), ObjectSpool(objects)
    spool.write(record.id, INPUTS)
    spool.keep_only(set())  # Its job may be about to be stored.
    spool.read(record.id, record.request.requests[0])
    monkeypatch.setattr(object_spool, "_NEW_S", -10.0)
    spool.keep_only({record.id})
    spool.read(record.id, record.request.requests[0])
    spool.keep_only(set())
    with pytest.raises(FileNotFoundError):
        spool.read(record.id, record.request.requests[0])


def test_a_store_that_can_not_be_reached_says_when_to_come_back() -> None:
    store = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:9",
        access_key_id="a",
        secret_access_key="hidden",
        region="r",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    kept = results(Objects(store))
    for use in (lambda: kept.write("a.png", b"x"), lambda: kept.read("a.png"), kept.sweep):
        with pytest.raises(StorageUnavailable) as caught:
            use()
        assert caught.value.retry_after_s
        assert "hidden" not in str(caught.value)


STORES = {
    "s3": S3Store("bucket", prefix="p", access_key_id="a", secret_access_key="b", region="r"),
    "az": AzureStore("box", prefix="p", account_name="me", account_key="a2V5"),
}


@pytest.mark.parametrize("kind", STORES)
def test_files_of_a_cloud_are_fetched_there_by_a_signed_url(kind: str) -> None:
    url = urlsplit(Objects(STORES[kind]).signed_url("results/a.png") or "")
    assert url.scheme == "https"
    assert url.path.endswith("/p/results/a.png")
    query = parse_qs(url.query)
    assert "X-Amz-Signature" in query or "sig" in query


def test_credentials_that_can_not_sign_leave_the_file_to_the_front() -> None:
    assert Objects(GCSStore("bucket", skip_signature=True)).signed_url("a.png") is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/path", "must be s3://"),
        ("/a/folder", "must be s3://"),
        ("file://relative/path", "must be s3://"),
        ("s3:bucket", "must be s3://"),
    ],
)
def test_other_places_for_results_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        ServerArgs(results=url)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match=r"results='file://.*can't be used"):
        Objects.at(f"file://{tmp_path}/file/below")


def test_a_store_that_can_not_be_listed_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "hidden", "REGION": "r"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setattr(objects_module, "_RETRIES", {"max_retries": 0})
    with pytest.raises(InvalidRequest, match="results='s3://bucket': can't be used") as caught:
        Objects.at("s3://bucket")
    assert "hidden" not in str(caught.value)


def test_a_new_folder_is_its_users_own(tmp_path: Path) -> None:
    Objects.at(f"file://{tmp_path}/new")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_a_server_with_a_ledger_of_its_own_can_keep_results_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    args = ServerArgs(results=f"file://{tmp_path}/objects")

    async def test() -> str:
        from multimodal_gen.serving.jobs import Jobs

        server = JobService(data, args=args)
        await server.up()
        job = await server.submit("a", pictures=PICTURE)
        server.engine.finish("a")
        done = await server.jobs.finished(job.id, ANNE)
        assert done.status == "completed"
        assert isinstance(server.jobs, Jobs)
        link = server.jobs.results.link(done.files[0], "anne")
        await server.stop()
        return link

    link = asyncio.run(test())
    assert not (data / "results").exists()
    assert not [path for path in (tmp_path / "objects" / "pictures").rglob("*") if path.is_file()]
    server = JobService(data, args=args)
    reply = ask(create_app(server.service, server.jobs, args), "GET", link)
    assert reply.status_code == 200
    assert reply.content.startswith(b"\x89PNG")
    assert reply.headers["content-type"] == "image/png"
    asyncio.run(server.stop())


def test_links_lead_to_the_cloud_or_have_the_content(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    server = JobService(folder, args=ServerArgs(results=f"file://{tmp_path}/objects"))
    objects = Objects(MemoryStore())
    kept = server.jobs.results = ObjectResults(objects, SECRET)
    link = kept.link(kept.add(b"content", ".png"))
    app = create_app(server.service, server.jobs, ServerArgs())
    streamed = ask(app, "GET", link)
    assert (streamed.content, streamed.headers["content-type"]) == (b"content", "image/png")
    objects.signed_url = lambda key: f"https://cloud/{key}?signature"  # type: ignore[method-assign]
    sent: httpx2.Response = ask(app, "GET", link)
    assert sent.status_code == 307
    assert sent.headers["location"].startswith("https://cloud/results/")
    asyncio.run(server.stop())
