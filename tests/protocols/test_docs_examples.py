"""Every route of the server is in a section of `/docs`, with an example that works."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from fake_engine import EagerEngine
from http_serving import IMAGES, VIDEO_MODEL, app_over, app_without_engine, eventually, serving
from huggingface_hub import constants
from playground_server import PICTURES

from multimodal_gen.entrypoints.http.ops.docs.examples import EXAMPLES
from multimodal_gen.entrypoints.http.ops.docs.route_example import SERVER
from multimodal_gen.entrypoints.http.ops.docs.schema import schema_of
from multimodal_gen.entrypoints.http.ops.docs.sections import SECTIONS
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.postprocess.images import encode_image

NAME, ADMIN_KEY = "bundled_model", "key-of-admin"
IN_PYTHON = [route for route, example in EXAMPLES.items() if example.python]


@cache
def schema() -> dict[str, Any]:
    return schema_of(app_without_engine(), needs_key=False)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_in_one_section_and_has_an_example() -> None:
    found = dict(operations())
    assert found.keys() == EXAMPLES.keys()
    assert {tuple(each["tags"]) for each in found.values()} == {(name,) for name in SECTIONS}
    assert all(each["x-codeSamples"] for each in found.values())


def test_openais_routes_come_first() -> None:
    order = [tag["name"] for tag in schema()["tags"]]
    assert order == list(SECTIONS)
    assert order[0].startswith("OpenAI")


def test_every_route_is_described_in_whole_sentences() -> None:
    for route, operation in operations():
        text = operation["description"]
        assert re.match(r"[A-Z].*[.:]$", text.split("\n\n")[0].replace("\n", " ")), route


def test_examples_name_the_key_where_one_is_needed() -> None:
    example = EXAMPLES["GET /v1/models"]
    assert "Bearer $MULTIMODAL_GEN_API_KEY" in example.curl("GET", "/v1/models", needs_key=True)
    assert "Bearer" not in example.curl("GET", "/v1/models", needs_key=False)


# -- running them


def engine_of(model: ModelInfo) -> Any:
    return EagerEngine(msgspec.structs.replace(model, name=NAME))


@pytest.fixture(scope="module")
def images() -> Iterator[str]:
    with serving(app_over(engine_of(PICTURES), admin_key=ADMIN_KEY)) as url:
        yield url


@pytest.fixture(scope="module")
def videos() -> Iterator[str]:
    engine = engine_of(VIDEO_MODEL)
    engine.frames = 5
    with serving(app_over(engine)) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's files."""
    for name, colour in (("boat.png", 90), ("mask.png", 255)):
        (tmp_path / name).write_bytes(encode_image(np.full((32, 32, 3), colour, np.uint8), "png"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def send(url: str, path: str, **body: Any) -> Any:
    return httpx2.post(url + path, json=body, timeout=30).raise_for_status().json()


def when_done(url: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def done() -> bool:
        found.update(httpx2.get(url + path, timeout=30).raise_for_status().json())
        return found["status"] == "completed"

    assert eventually(done)
    return found


def job(url: str) -> dict[str, str]:
    made = send(url, IMAGES, prompt="a", run_in_background=True)["id"]
    link = when_done(url, f"/v1/jobs/{made}")["outputs"][0]["url"]
    *_, token, name = link.split("/")
    return {"JOB": made, "TOKEN": token, "NAME": name}


def video(url: str) -> dict[str, str]:
    made = send(url, "/v1/videos", prompt="a")["id"]
    when_done(url, f"/v1/videos/{made}")
    return {"VIDEO": made}


def prompt(url: str) -> dict[str, str]:
    body = EXAMPLES["POST /prompt"].body
    assert body is not None
    made = send(url, "/prompt", **body)["prompt_id"]
    history: dict[str, Any] = {}

    def done() -> bool:
        history.update(httpx2.get(f"{url}/history/{made}").json())
        return made in history

    assert eventually(done)
    (file,) = history[made]["outputs"]["7"]["images"]
    return {"PROMPT": made, "FILE": file["filename"]}


IDS = {"JOB": job, "TOKEN": job, "VIDEO": video, "PROMPT": prompt, "FILE": prompt}


def ran(command: str, url: str) -> int:
    """Run an example; returns the status of the reply."""
    named = {name for name in IDS if f"${name}" in command}
    ids: dict[str, str] = {}
    for make in {IDS[name] for name in named}:
        ids |= make(url)
    script = command.replace(SERVER, url).replace("curl -s", "curl -s -w '\\n%{http_code}'", 1)
    environment = os.environ | ids | {"MULTIMODAL_GEN_ADMIN_KEY": ADMIN_KEY}
    done = subprocess.run(
        ["bash", "-ec", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("route", [each for each in EXAMPLES if "/v1/models/{name}/" not in each])
@pytest.mark.usefixtures("folder")
def test_the_example_of_a_route_works(
    route: str, images: str, request: pytest.FixtureRequest
) -> None:
    method, _, path = route.partition(" ")
    url = request.getfixturevalue("videos") if path.startswith("/v1/videos") else images
    example = EXAMPLES[route]
    status = ran(example.curl(method, path, needs_key=False), url)
    assert status == example.status or (status == 202 and "POST" in route)
    assert not example.save or Path(example.save).stat().st_size


@pytest.mark.parametrize("act", ["load", "reload", "unload"])
def test_the_example_that_changes_a_model_works(act: str) -> None:
    route = f"/v1/models/{{name}}/{act}"
    with serving(app_over(engine_of(PICTURES), admin_key=ADMIN_KEY)) as url:
        example = EXAMPLES[f"POST {route}"]
        assert ran(example.curl("POST", route, needs_key=False), url) == example.status


@pytest.mark.parametrize("route", IN_PYTHON)
@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_example_in_python_works(
    route: str,
    images: str,
    videos: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as it is for readers
    url = videos if "/v1/videos" in route else images
    exec(compile(EXAMPLES[route].python.replace(SERVER, url), route, "exec"), {})
    written = {path.name for path in folder.iterdir()} - {"boat.png", "mask.png"}
    assert written or capsys.readouterr().out
