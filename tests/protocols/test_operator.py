"""`/operator`: the state of the server, for who runs it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, app_over, app_without_engine, ask
from playground_server import Server

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.ops.operator.recent_failures import MOST, RecentFailures
from multimodal_gen.errors import Cancelled, GenerationFailed, InvalidRequest, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.request import Req
from multimodal_gen.observability.log_tail import LONGEST, MOST_LINES, LogTail
from multimodal_gen.observability.logging import configure_logging
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task

KEYS = {"api_key": "key-of-all", "admin_key": "key-of-admin"}
STATUS = "/operator/status"


def asking(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def state(app: FastAPI, key: str = "") -> dict[str, Any]:
    reply = ask(app, "GET", STATUS, headers=asking(key) if key else {})
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize(("key", "status"), [("", 401), ("key-of-all", 403), ("wrong", 401)])
def test_only_the_administrators_key_sees_the_state(key: str, status: int) -> None:
    app = app_without_engine(**KEYS)
    reply = ask(app, "GET", STATUS, headers=asking(key))
    assert reply.status_code == status
    assert status == 401 or "MULTIMODAL_GEN_ADMIN_KEY" in reply.json()["error"]["message"]


def test_the_page_is_open_and_holds_no_state() -> None:
    reply = ask(app_without_engine(**KEYS), "GET", "/operator")
    assert reply.status_code == 200
    assert "trusted-types 'none'" in reply.headers["content-security-policy"]
    again = ask(
        app_without_engine(**KEYS),
        "GET",
        "/operator",
        headers={"if-none-match": reply.headers["etag"]},
    )
    assert again.status_code == 304


def test_without_any_key_this_machine_sees_the_state() -> None:
    assert state(app_without_engine())["phase"] == "loading"


def test_with_an_administrators_key_alone_the_state_needs_it() -> None:
    app = app_without_engine(admin_key="key-of-admin")
    assert ask(app, "GET", STATUS).status_code == 403
    assert state(app, "key-of-admin")["phase"] == "loading"


def test_pages_of_other_sites_do_not_see_the_state() -> None:
    headers = {"origin": "https://elsewhere.example"}
    assert ask(app_without_engine(), "GET", STATUS, headers=headers).status_code == 403


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = Server(tmp_path, admin_key="key-of-admin")
    yield server
    server.stop()


def test_the_state_has_queue_engines_memory_and_keys(server: Server) -> None:
    for prompt in ("a", "b"):
        body = {"prompt": prompt, "run_in_background": True, "priority": "high", "n": 2}
        httpx2.post(server.url + IMAGES, json=body).raise_for_status()
        assert server.has(prompt, 2)
    server.engine.step("a", 1)
    reply = httpx2.get(server.url + STATUS, headers=asking("key-of-admin"))
    found = reply.raise_for_status().json()
    assert found["queue"]["by_priority"] == {"high": {"running": 1, "waiting": 3}}
    assert 0 <= found["queue"]["oldest_s"] < 60
    assert found["queue"]["capacity"] == 256
    (engine,) = found["engines"]
    assert (engine["status"], engine["in_flight"], engine["restarts"]) == ("ready", 4, 0)
    assert engine["memory"][0]["host_bytes"] == 3 << 30
    assert found["models"][0]["waiting"] == 3
    (key,) = found["keys"]
    assert (key["name"], key["active"]) == ("anonymous", 2)


def test_keys_are_named_with_what_they_used_and_never_shown() -> None:
    engine = FakeEngine()
    submit = engine.submit

    def fail(given: Req, pictures: Any = ()) -> Any:
        handle = submit(given, pictures)
        engine.fail(given.params.prompt, GenerationFailed("it went wrong"))
        return handle

    engine.submit = fail  # type: ignore[method-assign]
    app = app_over(engine, **KEYS)  # type: ignore[arg-type]
    reply = ask(app, "POST", IMAGES, json={"prompt": "secret words"}, headers=asking("key-of-all"))
    assert reply.status_code == 500
    found = state(app, "key-of-admin")
    (key,) = found["keys"]
    assert (key["name"], key["requests"], key["active"]) == ("default", {"failed": 1}, 0)
    (failure,) = found["failures"]
    assert (failure["key"], failure["reason"]) == ("default", "it went wrong")
    assert "secret words" not in str(found)
    assert "key-of" not in str(found)


def test_ranks_tell_their_memory(engine: EngineProcess) -> None:
    engine.wait_ready(300)
    (found,) = state(app_over(engine.client))["engines"]
    (rank,) = found["memory"]
    assert rank["rank"] == 0
    assert rank["host_bytes"] > 50e6


# -- failures


def failed(error: MultimodalGenError, name: str = "a") -> Task:
    req = Req(id=name, params=SamplingParams(prompt="p"))
    task = Task(name, Owner("anna"), [req], lambda _: None, model="m")
    task.fail(error)
    return task


def told(*tasks: Task) -> list[str]:
    failures = RecentFailures()
    for task in tasks:
        failures.ended_early(task)
    return [failure.reason for failure in failures.newest_first]


def test_failures_are_told_newest_first_each_once_and_boundedly() -> None:
    one, two = failed(GenerationFailed("one"), "1"), failed(GenerationFailed("two"), "2")
    assert told(one, two, two) == ["two", "one"]
    many = [failed(GenerationFailed(f"{number}"), f"{number}") for number in range(2 * MOST)]
    assert told(*many) == [f"{number}" for number in reversed(range(MOST, 2 * MOST))]


def test_what_a_client_cancelled_is_no_failure() -> None:
    assert not told(failed(Cancelled("by its client")))


def test_a_reason_that_quotes_a_prompt_is_not_told() -> None:
    assert told(failed(InvalidRequest("prompt", "my words", "is wrong"))) == ["prompt was refused"]


# -- the log


def test_the_last_lines_of_the_log_are_kept_and_long_ones_cut() -> None:
    tail = LogTail()
    for number in range(2 * MOST_LINES):
        tail.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    tail.handle(logging.makeLogRecord({"msg": "x" * 9 * LONGEST + "end"}))
    assert len(tail.entries) == MOST_LINES
    assert tail.entries[0] == f"line {MOST_LINES + 1}"
    assert tail.entries[-1].endswith("end")
    assert len(tail.entries[-1]) < 2 * LONGEST


def test_the_state_has_the_end_of_the_log_but_not_of_asking_for_it() -> None:
    configure_logging("front")
    app = app_without_engine()
    ask(app, "GET", "/version", headers={"x-request-id": "the-first"})
    state(app)
    lines = [line for line in state(app)["log"] if "GET " in line]
    assert "GET /version 200" in lines[-1]
    assert "request_id=the-first" in lines[-1]
