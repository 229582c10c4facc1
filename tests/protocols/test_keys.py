"""Who may pass, and as whom."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from http_serving import app_without_engine, ask
from starlette.types import Message

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.transport import key_ring
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing, read_keys
from multimodal_gen.entrypoints.http.transport.keys import admin_only
from multimodal_gen.entrypoints.http.transport.listen import listen
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.serving.owner import Owner, Share

FILE = """
# who: key
alice: sk-alice#1
bob: {key: 0012345, max_concurrent: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def keyed() -> FastAPI:
    return app_with_owner(api_key="one")


@pytest.fixture(scope="module")
def keyless() -> FastAPI:
    return app_with_owner(admin_key="root")


def app_with_owner(**given: Any) -> FastAPI:
    """An app that tells who asks: at /owner, under A1111's prefix, and to the admin only."""
    app = app_without_engine(**given)
    routes = APIRouter()

    @routes.get("/owner")
    @routes.get("/sdapi/v1/owner")
    async def owner(request: Request) -> str:
        return str(request.state.owner.name)

    @routes.post("/change", dependencies=[Depends(admin_only)])
    async def change() -> str:
        return "changed"

    @routes.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        assert websocket.scope["subprotocols"] == ["multimodal_gen"]
        assert websocket.state.owner == Owner("default")
        await websocket.accept()
        await websocket.close()

    app.include_router(routes)
    return app


def owner(app: FastAPI, authorization: str | None, path: str = "/owner", **headers: str) -> str:
    """The owner's name, or the status of a refusal."""
    sent = headers if authorization is None else {"authorization": authorization, **headers}
    response = ask(app, "GET", path, headers=sent)
    return str(response.json() if response.is_success else response.status_code)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_each_key_has_its_owner(file: Path) -> None:
    app = app_with_owner(api_keys_file=str(file), api_key="one", admin_key="root")
    assert owner(app, "Bearer sk-alice#1") == "alice"
    assert owner(app, "Bearer 0012345") == "bob"
    assert owner(app, "Bearer one") == "default"
    assert owner(app, "Bearer root") == "admin"
    assert owner(app, "Bearer 12345") == owner(app, None) == "401"


def test_without_keys_everybody_is_anonymous_and_the_admin_is_known(keyless: FastAPI) -> None:
    assert owner(keyless, None) == owner(keyless, "Bearer wrong") == "anonymous"
    assert owner(keyless, "Bearer root") == "admin"


def test_what_changes_the_server_takes_the_admins_key(keyless: FastAPI) -> None:
    app = app_with_owner(api_key="one", admin_key="root")
    for key, status in (("one", 403), ("root", 200), ("wrong", 401)):
        response = ask(app, "POST", "/change", headers={"authorization": f"Bearer {key}"})
        assert response.status_code == status
    assert ask(keyless, "POST", "/change").json()["error"]["code"] == "forbidden"


def test_basic_is_taken_where_a1111s_clients_ask_only(keyed: FastAPI) -> None:
    assert owner(keyed, basic("anybody", "one"), "/sdapi/v1/owner") == "default"
    assert owner(keyed, basic("anybody", "two"), "/sdapi/v1/owner") == "401"
    assert owner(keyed, "Basic %%%", "/sdapi/v1/owner") == "401"
    assert owner(keyed, basic("anybody", "one")) == "401"


@pytest.mark.parametrize("query", ["?key=one", "?api_key=one", "?token=one"])
def test_keys_in_queries_and_cookies_are_not_looked_at(keyed: FastAPI, query: str) -> None:
    assert owner(keyed, None, f"/owner{query}", cookie="key=one") == "401"


def test_pages_probes_and_unguessable_links_answer_without_a_key(keyed: FastAPI) -> None:
    for path in ("/", "/docs", "/health", "/liveness", "/files/token/name.png"):
        assert ask(keyed, "GET", path).status_code != 401
    for method, path in (
        ("POST", "/"),
        ("POST", "/docs"),
        ("DELETE", "/files/token/name.png"),
        ("GET", "/files/token"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        assert ask(keyed, method, path).status_code == 401


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        ("http://127.0.0.1:30000", "127.0.0.1:30000", True),
        ("http://localhost:30000", "localhost:30000", True),
        ("http://[::1]:30000", "[::1]:30000", True),
        ("https://evil.example", "127.0.0.1:30000", False),
        ("http://evil.example:30000", "evil.example:30000", False),
        ("http://127.0.0.1:8000", "127.0.0.1:30000", False),
        ("null", "127.0.0.1:30000", False),
    ],
)
def test_pages_of_other_sites_can_not_use_a_server_without_keys(
    keyless: FastAPI, keyed: FastAPI, origin: str, host: str, passes: bool
) -> None:
    found = owner(keyless, None, origin=origin, host=host)
    assert found == ("anonymous" if passes else "403")
    assert owner(keyed, "Bearer one", origin=origin, host=host) == "default"


def test_a_name_that_somebody_points_here_does_not_open_a_server_without_keys(
    keyless: FastAPI, keyed: FastAPI
) -> None:
    assert owner(keyless, None, host="evil.example:30000") == "403"
    assert owner(keyless, None, host="127.0.0.1:30000") == "anonymous"
    assert owner(keyed, "Bearer one", host="pictures.example") == "default"


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        (["multimodal_gen", "bearer." + base64.urlsafe_b64encode(b"one").decode().rstrip("=")], 1),
        (["multimodal_gen", "bearer.dHdv"], 0),
        (["multimodal_gen"], 0),
        ([], 0),
    ],
)
def test_a_browsers_websocket_offers_its_key_as_a_subprotocol(
    keyed: FastAPI, offered: list[str], accepted: bool
) -> None:
    sent = asyncio.run(connected(keyed, offered))
    if accepted:
        assert sent[0]["type"] == "websocket.accept"
        assert sent[0]["subprotocol"] == "multimodal_gen"
    else:
        assert sent[0]["type"] == "websocket.close"


async def connected(app: FastAPI, offered: list[str]) -> list[Message]:
    """What the app answers to a WebSocket."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/socket",
        "raw_path": b"/socket",
        "query_string": b"",
        "headers": [],
        "subprotocols": offered,
    }
    await app(scope, receive, send)
    return sent


# -- the file


def test_the_file_is_read_again_when_it_changes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "_LOOK_S", 0)
    ring = KeyRing(ServerArgs(api_keys_file=str(file)))
    assert ring.shares == {"alice": Share(), "bob": Share(max_concurrent=2)}
    replaced(file, "carol: {key: sk-carol, max_concurrent: 1}")
    assert ring.owner_of(b"sk-carol") == Owner("carol")
    assert ring.owner_of(b"sk-alice#1") is None
    assert ring.shares == {"carol": Share(max_concurrent=1)}


@pytest.mark.parametrize("broken", ["", "a: [", "a: {}", "alice: x\nalice: y", 'a: "\\UFFFFFFFF"'])
def test_a_file_that_got_broken_leaves_the_keys_as_they_were(
    file: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(key_ring, "_LOOK_S", 0)
    ring = KeyRing(ServerArgs(api_keys_file=str(file)))
    replaced(file, broken)
    assert ring.owner_of(b"sk-alice#1") == Owner("alice")
    file.unlink()
    assert ring.owner_of(b"sk-alice#1") == Owner("alice")


def test_an_entry_says_what_the_key_is_entitled_to(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("a: {key: x, weight: 2.5, priorities: true}\nb: {key: y, priorities: false}")
    ring = KeyRing(ServerArgs(api_keys_file=str(path), api_key="z", admin_key="root"))
    named = {"a": Share(weight=2.5, priorities=True), "b": Share()}
    assert ring.shares == {**named, "default": Share()}


def replaced(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-only",
        "- a\n- b",
        "a: [",
        "a: ''",
        "a: with space",
        "a: [x]",
        "a: {max_concurrent: 2}",
        "a: {key: x, admin: true}",
        "a: {key: x, max_concurrent: 0}",
        "a: {key: x, max_concurrent: many}",
        "a: {key: x, weight: 0}",
        "a: {key: x, weight: .nan}",
        "a: {key: x, weight: [1]}",
        "a: {key: x, priorities: 2}",
        "a: x\na: y",
        "anonymous: x",
        "admin: x",
        "a b: x",
        "? [a]\n: x",
        'a: "\\UFFFFFFFF"',
        "a: {key: x, max_concurrent: " + "9" * 5000 + "}",
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="api_keys_file"):
        read_keys(path)


def test_two_names_for_one_key_are_refused(file: Path) -> None:
    with pytest.raises(InvalidRequest, match="same key"):
        KeyRing(ServerArgs(api_keys_file=str(file), api_key="sk-alice#1"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        KeyRing(ServerArgs(api_keys_file=str(tmp_path / "none")))


def test_keys_are_kept_as_hashes_only(file: Path) -> None:
    assert "sk-alice" not in repr(KeyRing(ServerArgs(api_keys_file=str(file)))._owners)


def test_a_file_of_keys_lets_the_server_listen_to_others(file: Path) -> None:
    with pytest.raises(InvalidRequest):
        listen(ServerArgs(host="0.0.0.0", port=0, admin_key="root"))
    listen(ServerArgs(host="0.0.0.0", port=0, api_keys_file=str(file))).close()
