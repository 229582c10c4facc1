"""A full disk or a locked ledger is said in each protocol's own shape, with when to come back."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, ask
from no_model import MODEL
from PIL import Image
from storage_faults import full, locked

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.comfyui.routes import files as comfyui_files
from multimodal_gen.entrypoints.http.media import pictures
from multimodal_gen.messages.request import Req
from multimodal_gen.serving import jobs
from multimodal_gen.serving.service import Service

Fault = Callable[[Path], contextlib.AbstractContextManager[None]]


class ReadyEngine(FakeEngine):
    """Has finished before it is asked."""

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    engine, args = ReadyEngine(), ServerArgs()
    engine.model = msgspec.structs.replace(MODEL, tasks=("text-to-image", "image-to-image"))
    service = Service.over(engine, args)  # type: ignore[arg-type]
    return create_app(service, jobs.Jobs.in_folder(tmp_path, service, args), args)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()


def check(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that says to come back, and says why."""
    assert response.status_code == status
    assert int(response.headers["retry-after"]) >= 1
    assert "x-should-retry" not in response.headers
    body: dict[str, Any] = response.json()
    assert code in str(body)
    assert ("locked" if status == 503 else "full") in str(body).lower() or "space" in str(body)
    return body


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(locked, 503, "storage_unavailable"), (lambda _: full(), 507, "storage_full")],
)
def test_a_job_that_can_not_be_stored_is_refused(
    app: FastAPI, tmp_path: Path, fault: Fault, status: int, code: str
) -> None:
    job = {"prompt": "a", "run_in_background": True}
    with fault(tmp_path):
        refused = check(ask(app, "POST", IMAGES, json=job), status, code)
        assert refused["error"]["type"] == "server_error"
        assert ask(app, "GET", "/v1/jobs").json()["data"] == []
    assert ask(app, "POST", IMAGES, json=job).status_code == 202


def test_a_picture_that_can_not_be_stored_behind_a_link_is_said_to_be(app: FastAPI) -> None:
    body = {"prompt": "a", "response_format": "url"}
    with full():
        check(ask(app, "POST", IMAGES, json=body), 507, "storage_full")
    assert ask(app, "POST", IMAGES, json=body).status_code == 200


@pytest.mark.parametrize("path", ["/upload/image", "/api/upload/image"])
def test_an_upload_that_can_not_be_stored_is_refused_as_comfyui_would(
    app: FastAPI, path: str
) -> None:
    with full():
        refused = check(ask(app, "POST", path, files={"image": png()}), 507, "storage_full")
    assert refused["node_errors"] == {}
    assert ask(app, "POST", path, files={"image": png()}).status_code == 200


@pytest.mark.parametrize(
    ("path", "module", "files"),
    [
        ("/v1/images/edits", pictures, {"image": png(), "prompt": (None, "a")}),
        ("/upload/image", comfyui_files, {"image": png()}),
        ("/api/upload/image", comfyui_files, {"image": png()}),
    ],
)
@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.ENOENT, 500)])
def test_a_full_disk_is_said_wherever_it_is_met_and_no_other_error_of_the_system(
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    module: ModuleType,
    files: dict[str, Any],
    number: int,
    status: int,
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "secret")

    monkeypatch.setattr(module, "decode_picture", decode)
    answer = ask(app, "POST", path, files=files)
    assert "secret" not in answer.text
    if status == 507:
        assert ("node_errors" in check(answer, 507, "storage_full")) == ("upload" in path)
    assert answer.status_code == status


def test_a_job_of_a_row_that_can_not_be_read_is_listed_and_shown(
    app: FastAPI, tmp_path: Path
) -> None:
    def submit() -> str:
        body = {"prompt": "a", "run_in_background": True}
        return str(ask(app, "POST", IMAGES, json=body).json()["id"])

    ids = [submit() for _ in range(3)]
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as other, other:
        other.execute("UPDATE jobs SET request = x'c1' WHERE id = ?", (ids[1],))
    for path in ("/v1/jobs", "/v1/jobs?order=asc&limit=2"):
        listed = ask(app, "GET", path)
        assert listed.status_code == 200
        assert ids[1] in [job["id"] for job in listed.json()["data"]]
    for path in (f"/v1/jobs/{ids[1]}", f"/v1/images/jobs/{ids[1]}"):
        shown = ask(app, "GET", path)
        assert shown.json()["error"]["code"] == "generation_failed"
    assert ask(app, "DELETE", f"/v1/jobs/{ids[1]}").json()["deleted"]
