"""The page at `/` as it is served, and the routes that it asks, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import pytest
from http_serving import app_without_engine, ask, eventually
from playground_server import PICTURES, Server

from multimodal_gen.entrypoints.http.ops.playground import page

HTML = page()
FOLDER = Path(str(resources.files("multimodal_gen") / "assets" / "playground"))
SCRIPTS = re.findall(r"<script>(.*?)</script>", HTML, re.DOTALL)
SCRIPT = "\n".join(SCRIPTS)
JOB = {"prompt": "a rocket", "run_in_background": True, "previews": True}
KEYS = {"anne": "key-of-anne", "bob": "key-of-bob"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("data")
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps(KEYS))
    server = Server(folder, api_keys_file=str(keys))
    yield server
    server.stop()


@pytest.fixture
def anne(server: Server) -> Iterator[httpx2.Client]:
    with client_of(server, "anne") as client:
        yield client
    server.clear()


def client_of(server: Server, name: str) -> httpx2.Client:
    headers = {"authorization": f"Bearer {KEYS[name]}"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=30)


def submitted(client: httpx2.Client, server: Server, **fields: Any) -> str:
    reply = client.post("/v1/images/generations", json={**JOB, **fields})
    assert reply.status_code == 202
    assert server.has(fields.get("prompt", "a rocket"), fields.get("n", 1))
    return str(reply.json()["id"])


def completed(client: httpx2.Client, job_id: str) -> dict[str, Any]:
    assert eventually(lambda: client.get(f"/v1/jobs/{job_id}").json()["status"] == "completed")
    return dict(client.get(f"/v1/jobs/{job_id}").json())


class Events:
    """What the stream says, as it comes."""

    def __init__(self, reply: httpx2.Response) -> None:
        self._lines = reply.iter_lines()

    def next(self, *kinds: str) -> dict[str, Any]:
        end = time.monotonic() + 30
        for line in self._lines:
            if line.startswith("data: ") and (event := json.loads(line[6:]))["type"] in kinds:
                return dict(event)
            assert time.monotonic() < end
        raise AssertionError(f"the stream ended before {kinds}")


def test_the_page_is_small() -> None:
    assert len(HTML.encode()) < 250_000


def test_the_page_is_there_without_a_key_and_is_not_sent_twice() -> None:
    app = app_without_engine(api_key="secret")
    reply = ask(app, "GET", "/")
    assert (reply.status_code, reply.text) == (200, HTML)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    again = ask(app, "GET", "/", headers={"if-none-match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert ask(app, "HEAD", "/").content == b""


def test_nothing_but_the_pages_own_scripts_may_run() -> None:
    policy = ask(app_without_engine(), "GET", "/").headers["content-security-policy"]
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()) for each in SCRIPTS]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "*" not in policy


def test_nothing_comes_from_another_host() -> None:
    urls = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`]*", HTML))
    assert urls <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|<link[^>]+stylesheet|<script[^>]+src|\burl\(", HTML)


def test_the_policy_forbids_no_part_of_the_page() -> None:
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", HTML.split("<script>")[0])
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in SCRIPT


def test_without_javascript_it_says_what_it_needs_and_hides_what_would_not_work() -> None:
    hidden, said = re.findall(r"<noscript>(.*?)</noscript>", HTML, re.DOTALL)
    assert re.search(r"#form, .*display: none", hidden)
    assert "needs JavaScript" in said


def test_ids_are_unique_and_those_that_are_named_exist() -> None:
    ids = Counter(re.findall(r'\bid="([^"]+)"', HTML))
    assert max(ids.values()) == 1
    named = set(re.findall(r'\$\("([^"]+)"\)', SCRIPT))
    named |= set(re.findall(r'(?:for|aria-labelledby|aria-describedby)="([^"]+)"', HTML))
    named |= {f"i-{name}" for name in re.findall(r'icon\("([^"]+)"\)', SCRIPT)}
    assert named <= ids.keys()


def test_every_field_has_a_name_for_who_does_not_see_it() -> None:
    labelled = set(re.findall(r'<label for="([^"]+)"', HTML))
    for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", HTML.split("<script>")[0]):
        field = re.search(r'\bid="([^"]+)"', tag)
        assert "aria-label" in tag or (field and field[1] in labelled), tag


def test_whether_a_key_is_needed_is_told_to_everybody() -> None:
    app = app_without_engine(api_key="secret")
    needed = [
        ask(app, "GET", "/playground/access", headers=headers).json()["needs_key"]
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": "Bearer secret"})
    ]
    assert needed == [True, True, False]
    assert not ask(app_without_engine(), "GET", "/playground/access").json()["needs_key"]


def test_the_model_is_described(anne: httpx2.Client) -> None:
    info = anne.get("/model_info").json()
    assert (info["name"], info["loras"]) == (PICTURES.name, [])
    assert info["defaults"]["num_inference_steps"] == 20
    assert info["limits"]["max_outputs"] == 16


def test_the_loras_of_the_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ink.safetensors").touch()
    server = Server(tmp_path, lora_dir=str(tmp_path / "loras"))
    assert httpx2.get(f"{server.url}/model_info").json()["loras"] == ["ink"]
    server.stop()


def test_the_upscalers_of_the_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "upscalers").mkdir()
    (tmp_path / "upscalers" / "4x-tiny.safetensors").touch()
    server = Server(tmp_path, upscaler_dir=str(tmp_path / "upscalers"))
    assert httpx2.get(f"{server.url}/model_info").json()["upscalers"] == ["4x-tiny"]
    listed = httpx2.get(f"{server.url}/sdapi/v1/upscalers").json()
    assert [each["name"] for each in listed] == ["None", "Lanczos", "Nearest", "4x-tiny"]
    assert httpx2.get(f"{server.url}/models/upscale_models").json() == ["4x-tiny.safetensors"]
    server.stop()


def test_a_job_says_what_was_asked_and_where_the_pictures_are(
    anne: httpx2.Client, server: Server
) -> None:
    job_id = submitted(anne, server, n=2, seed=5)
    waiting = anne.get(f"/v1/jobs/{job_id}").json()
    assert (waiting["outputs"][0]["url"], waiting["completed_at"]) == (None, None)
    server.finish("a rocket")
    job = completed(anne, job_id)
    assert (job["kind"], job["parameters"]["prompt"]) == ("image", "a rocket")
    assert [output["seed"] for output in job["outputs"]] == [5, 6]
    for output in job["outputs"]:
        assert anne.get(output["url"]).headers["content-type"] == "image/png"


def test_jobs_are_listed_newest_first_in_pages(anne: httpx2.Client, server: Server) -> None:
    ids = [submitted(anne, server, prompt=f"rocket {i}") for i in range(3)]
    page = anne.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["data"]] == ids[:0:-1]
    assert page["has_more"]
    last = anne.get("/v1/jobs", params={"after": page["last_id"]}).json()
    assert ([job["id"] for job in last["data"]], last["has_more"]) == (ids[:1], False)


def test_a_deleted_job_ends_and_is_gone(anne: httpx2.Client, server: Server) -> None:
    job_id = submitted(anne, server)
    assert anne.delete(f"/v1/jobs/{job_id}").json()["deleted"]
    assert server.has("a rocket", 0)
    assert anne.get(f"/v1/jobs/{job_id}").status_code == 404


def test_the_jobs_of_others_are_not_seen(anne: httpx2.Client, server: Server) -> None:
    job_id = submitted(anne, server)
    with client_of(server, "bob") as bob:
        assert bob.get("/v1/jobs").json()["data"] == []
        assert bob.get(f"/v1/jobs/{job_id}").status_code == 404
        assert bob.delete(f"/v1/jobs/{job_id}").status_code == 404
        with bob.stream("GET", "/v1/jobs/events") as reply:
            told = Events(reply).next("server")
    assert (told["own"], told["others"], told["phase"]) == (0, 1, "ready")


def test_the_stream_tells_of_a_job_from_beginning_to_end(
    anne: httpx2.Client, server: Server
) -> None:
    with anne.stream("GET", "/v1/jobs/events") as reply:
        events = Events(reply)
        events.next("server")
        job_id = submitted(anne, server)
        assert events.next("job")["job"]["id"] == job_id
        server.preview("a rocket", 5, gray=90)
        seen: dict[str, Any] = {"job.progress": {"step": 0}}
        while seen["job.progress"]["step"] != 5 or "job.preview" not in seen:
            event = events.next("job.progress", "job.preview")
            seen[event["type"]] = event
        progress = seen["job.progress"]
        assert (progress["status"], progress["total"]) == ("in_progress", 20)
        assert seen["job.preview"]["image_url"].startswith("data:image/jpeg;base64,")
        server.finish("a rocket")
        job = events.next("job")["job"]
    assert (job["status"], job["outputs"][0]["url"] is None) == ("completed", False)


def test_the_stream_tells_of_what_is_under_way_and_of_what_is_deleted(
    anne: httpx2.Client, server: Server
) -> None:
    job_id = submitted(anne, server)
    with anne.stream("GET", "/v1/jobs/events") as reply:
        events = Events(reply)
        assert events.next("job")["job"]["id"] == job_id
        anne.delete(f"/v1/jobs/{job_id}")
        assert events.next("job.deleted", "job")["type"] in ("job.deleted", "job")
    assert anne.get("/v1/jobs").json()["data"] == []


def test_a_stream_ends_with_the_server(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with httpx2.stream("GET", f"{server.url}/v1/jobs/events", timeout=30) as reply:
        events = Events(reply)
        assert events.next("server")["phase"] == "ready"
        server.stop()
        assert events.next("server")["phase"] == "stopping"


def test_no_two_scripts_declare_the_same_name() -> None:
    """They share one scope, in which a second declaration would end the whole script."""
    declared = re.compile(
        r"^(?:const|let|class|(?:async )?function\*?) (?:(\w+)|[\[{]([^=]*)[\]}] =)", re.MULTILINE
    )
    names = Counter(
        name
        for script in FOLDER.rglob("*.js")
        for match in declared.finditer(script.read_text("utf-8"))
        for name in re.findall(r"\w+", match[1] or match[2])
    )
    assert [name for name, count in names.items() if count > 1] == []
