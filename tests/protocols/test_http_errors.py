"""What the HTTP edge refuses, and how it says so. No engine is needed for that."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import (
    IMAGES,
    MODEL,
    address_of,
    app_of,
    app_with,
    app_without_engine,
    ask,
    serving,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_gen import errors
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.openai.schema import ImagesRequest
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.serving.service import Service

JSON = {"content-type": "application/json"}
FULL = errors.QueueFull("no room for more requests", 2.3)
KEY = "sk-ÿ-key"
MAX_BODY_BYTES = 2**20


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Takes every good request as far as a full queue: 429."""
    return app_with(ends=FULL, max_body_bytes=MAX_BODY_BYTES)


def post(app: FastAPI, /, **body: object) -> httpx2.Response:
    return ask(app, "POST", IMAGES, content=json.dumps(body), headers=JSON)


def refusal(response: httpx2.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return error


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("prompt", 7, "invalid_type"),
        ("prompt", None, "invalid_type"),
        ("prompt", "\ud800", "invalid_value"),
        ("prompt", "a" * 40_000, "invalid_value"),
        ("n", 0, "invalid_value"),
        ("n", 11, "invalid_value"),
        ("n", "2", "invalid_type"),
        ("n", True, "invalid_type"),
        ("size", "96", "invalid_value"),
        ("size", "96x100", "invalid_value"),
        ("size", "10000x10000", "invalid_value"),
        ("size", "-16x16", "invalid_value"),
        ("width", 100, "invalid_value"),
        ("height", 96.5, "invalid_type"),
        ("seed", -2, "invalid_value"),
        ("seed", 2**70, "invalid_value"),
        ("seed", "x", "invalid_type"),
        ("seed", [1, None, "x"], "invalid_type"),
        ("seed", [], "invalid_value"),
        ("num_inference_steps", -1, "invalid_value"),
        ("guidance_scale", "3", "invalid_type"),
        ("guidance_scale", -1, "invalid_value"),
        ("guidance_scale", float("nan"), "invalid_value"),
        ("scheduler", "nonsense", "invalid_value"),
        ("strength", 1.5, "invalid_value"),
        ("num_frames", 9, "invalid_value"),
        ("priority", "urgent", "invalid_value"),
        ("lora", [{"name": "a"}], "invalid_value"),
        ("output_format", "gif", "invalid_value"),
        ("output_format", "svg", "invalid_value"),
        ("output_compression", 101, "invalid_value"),
        ("response_format", "gif", "invalid_value"),
        ("frame_count", 4, "invalid_value"),
        ("frame_duration_ms", 100, "invalid_value"),
        ("svg", {"model": "a"}, "invalid_value"),
        ("markup", "a", "invalid_value"),
        ("background", "transparent", "invalid_value"),
        ("generator_device", "cuda", "invalid_value"),
        ("stream", "yes", "invalid_type"),
        ("partial_images", 4, "invalid_value"),
        ("partial_images", -1, "invalid_value"),
        ("image_path", "/etc/passwd", "invalid_value"),
        ("mask_path", "/etc/passwd", "invalid_value"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_field(
    app: FastAPI, field: str, value: object, code: str
) -> None:
    response = post(app, **{"prompt": "a", field: value})
    error = refusal(response)
    assert (response.status_code, error["param"], error["code"]) == (400, field, code)
    assert error["type"] == "invalid_request_error"
    assert field in error["message"]
    assert len(error["message"]) < 500


def test_what_is_nested_is_named_by_its_place(app: FastAPI) -> None:
    lora = [{"name": "a"}, {"name": "b", "path": "/etc/passwd"}]
    assert refusal(post(app, prompt="a", lora=lora))["param"] == "lora.1.path"


def test_a_missing_prompt_is_named(app: FastAPI) -> None:
    error = refusal(post(app, n=1))
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


def test_contradictions_are_refused(app: FastAPI) -> None:
    assert refusal(post(app, prompt="a", n=2, seed=[1, 2, 3]))["param"] == "seed"
    named = refusal(post(app, prompt="a", n=2, num_outputs_per_prompt=3))["param"]
    assert named == "num_outputs_per_prompt"


def test_null_is_as_good_as_unset(app: FastAPI) -> None:
    nulls = dict.fromkeys(ImagesRequest.model_fields.keys() - {"prompt"})
    assert post(app, prompt="a", **nulls).status_code == 429


def test_what_openai_clients_send_without_need_is_taken(app: FastAPI) -> None:
    sent = {
        "model": "gpt-image-1",
        "quality": "high",
        "background": "auto",
        "moderation": "low",
        "style": "vivid",
        "user": "me",
        "safety_identifier": "me",
        "response_format": "b64_json",
        "output_compression": 100,
        "size": "auto",
        "stream": False,
        "partial_images": 0,
    }
    assert post(app, prompt="a", **sent).status_code == 429


def test_a_video_model_makes_no_pictures() -> None:
    model = msgspec.structs.replace(MODEL, tasks=("text-to-video",))
    app = app_with(ends=FULL, model=model)
    error = refusal(post(app, prompt="a"))
    assert (error["param"], error["code"]) == ("model", "invalid_value")
    assert "video" in error["message"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b"[1]", JSON),
        (b'"a"', JSON),
        (b"\xff\xfe", JSON),
        (b"[" * 100_000, JSON),
        (b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}", JSON),
        (b'{"prompt": "a", "x": ' + b"[" * 900 + b"]" * 900 + b', "n": 0}', JSON),
        (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", JSON),
        (b'{"prompt": "a", "guidance_scale": 1' + b"0" * 400 + b"}", JSON),
        (b"prompt=a", {"content-type": "text/plain"}),
        (b"n=2", {"content-type": "application/x-www-form-urlencoded"}),
        (b"prompt=a", {"content-type": "multipart/form-data"}),
        (b"prompt=a", {"content-type": "multipart/form-data; boundary=b"}),
        (b'{"prompt": "a"}', {}),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    app: FastAPI, content: bytes, headers: dict[str, str]
) -> None:
    response = ask(app, "POST", IMAGES, content=content, headers=headers)
    assert response.status_code == 400
    assert refusal(response)["message"]


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["auto", "96x96", "png", "low"])
)
# Jobs are accepted though the engine's queue is full.
_fields = sorted(ImagesRequest.model_fields.keys() - {"run_in_background"})
_names = st.sampled_from(_fields) | st.text(max_size=5)
_values = _scalars | st.lists(_scalars, max_size=3) | st.dictionaries(_names, _scalars, max_size=2)
_bodies = st.dictionaries(_names, _values, max_size=4)
_fuzz = settings(deadline=None, derandomize=True, database=None, max_examples=200)


@_fuzz
@given(body=_bodies)
def test_no_body_makes_the_server_fail(app: FastAPI, body: dict[str, Any]) -> None:
    response = post(app, **{"prompt": "a", **body})
    assert response.status_code in (400, 429)
    refusal(response)


@_fuzz
@given(content=st.binary())
def test_no_bytes_make_the_server_fail(app: FastAPI, content: bytes) -> None:
    response = ask(app, "POST", IMAGES, content=content, headers=JSON)
    assert response.status_code == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(app: FastAPI, chunked: bool) -> None:
    async def chunks() -> Any:
        for _ in range(MAX_BODY_BYTES // 2**16 + 1):
            yield b" " * 2**16

    content = chunks() if chunked else b" " * (MAX_BODY_BYTES + 1)
    response = ask(app, "POST", IMAGES, content=content, headers=JSON)
    assert (response.status_code, refusal(response)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", IMAGES, 405, "method_not_allowed"),
        ("POST", IMAGES + "/", 404, "not_found"),
        ("GET", "/v1/models/other/name", 404, "model_not_found"),
    ],
)
def test_what_is_not_there_is_said_in_the_envelope(
    app: FastAPI, method: str, path: str, status: int, code: str
) -> None:
    response = ask(app, method, path)
    assert (response.status_code, refusal(response)["code"]) == (status, code)


def test_a_refused_method_is_answered_with_all_that_are_allowed(app: FastAPI) -> None:
    assert ask(app, "PUT", "/v1/images/jobs/1").headers["allow"] == "DELETE, GET"
    assert ask(app, "GET", IMAGES).headers["allow"] == "POST"


@pytest.mark.parametrize("kind", errors.HTTP_STATUS)
def test_every_error_of_the_tree_has_its_status(kind: type[errors.MultimodalGenError]) -> None:
    ends = errors.from_wire(kind.code, "the reason", None, None)
    response = post(app_with(ends=ends), prompt="a")
    assert response.status_code == errors.HTTP_STATUS[kind]
    assert refusal(response)["code"] == kind.code


def test_when_to_come_back_is_said_where_it_helps(app: FastAPI) -> None:
    full = post(app, prompt="a")
    assert (full.headers["retry-after"], "x-should-retry" in full.headers) == ("3", False)
    loading = post(app_without_engine(), prompt="a")
    assert (loading.status_code, loading.headers["retry-after"]) == (503, "5")
    assert "x-should-retry" not in loading.headers


def test_retries_are_discouraged_where_they_can_not_help() -> None:
    for ends in (errors.OutOfMemory("too large"), errors.EngineDied("rank 0 died")):
        assert post(app_with(ends=ends), prompt="a").headers["x-should-retry"] == "false"


def test_what_failed_inside_stays_inside() -> None:
    ends = errors.GenerationFailed("RuntimeError: at /home/someone/secret.py")
    response = post(app_with(ends=ends), prompt="a")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_bug_is_answered_in_the_envelope_and_shows_nothing() -> None:
    app = app_without_engine()

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("at /home/someone/secret.py")

    response = ask(app, "GET", "/bug", headers={"x-request-id": "mine"})
    assert (response.status_code, refusal(response)["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] == "mine"
    assert "secret" not in response.text


def test_health_is_503_while_the_model_loads_and_after_a_rank_died() -> None:
    loading = ask(app_without_engine(), "GET", "/health")
    assert (loading.status_code, refusal(loading)["code"]) == (503, "engine_not_ready")
    dead = ask(app_with(ends=FULL, dead=errors.EngineDied("rank 1 died")), "GET", "/health")
    assert (dead.status_code, refusal(dead)["code"]) == (503, "engine_died")
    assert ask(app_with(ends=FULL), "GET", "/health").status_code == 200
    assert ask(app_without_engine(), "GET", "/liveness").status_code == 200


def test_health_says_how_far_the_model_is_loaded() -> None:
    args = ServerArgs()
    service = Service(args)
    progress = LoadingProgress(
        component="transformer", loaded_bytes=9_870_000_000, total_bytes=33_700_000_000
    )
    next(service.fleet.engines).engine_loading(progress)
    app = app_of(service, args)
    told = {"component": "transformer", "loaded_gb": 9.87, "total_gb": 33.7}
    loading = ask(app, "GET", "/health")
    assert (loading.status_code, loading.json()["loading"]) == (503, told)
    assert ask(app, "GET", "/liveness").status_code == 200
    next(service.fleet.engines).engine_up(FakeEngine())  # type: ignore[arg-type]
    ready = ask(app, "GET", "/health")
    assert (ready.status_code, ready.json()["loading"]) == (200, None)


@pytest.mark.parametrize(
    "given", [None, "", KEY, "Bearer", "Bearer ", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x"]
)
def test_without_the_key_only_the_probes_answer(given: str | None) -> None:
    app = app_without_engine(api_key=KEY)
    headers = {} if given is None else {"authorization": given.encode("utf-8")}
    for path in ("/v1/models", "/version", "/openapi.json", "/nowhere"):
        response = ask(app, "GET", path, headers=headers)
        assert (response.status_code, refusal(response)["code"]) == (401, "invalid_api_key")
    assert ask(app, "GET", "/liveness", headers=headers).status_code == 200
    assert ask(app, "GET", "/health", headers=headers).status_code == 503


def test_with_the_key_everything_answers() -> None:
    headers = {"authorization": f"bearer {KEY}".encode()}
    assert ask(app_without_engine(api_key=KEY), "GET", "/version", headers=headers).is_success


def test_the_schema_tells_of_the_page_and_of_a_server_that_is_not_ready(app: FastAPI) -> None:
    paths = ask(app, "GET", "/openapi.json").json()["paths"]
    assert set(paths["/"]) == {"get", "post"}
    assert set(paths["/health"]["get"]["responses"]) == {"200", "503"}
    assert set(paths["/models/{model}"]) == {"get", "post"}


def test_a_sane_request_id_of_the_client_is_kept(app: FastAPI) -> None:
    def answered(given: str) -> str:
        return ask(app, "GET", "/version", headers={"x-request-id": given}).headers["x-request-id"]

    assert answered("abc-1") == "abc-1"
    assert answered("a b") != "a b"
    assert answered("a" * 1000) != "a" * 1000


def test_a_body_far_too_large_is_answered_over_a_socket_too(app: FastAPI) -> None:
    with serving(app) as url:
        response = httpx2.post(url + IMAGES, content=b" " * (20 * MAX_BODY_BYTES), headers=JSON)
    assert (response.status_code, refusal(response)["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff" * 500,
        b"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_next_is_served(app: FastAPI, sent: bytes) -> None:
    with serving(app) as url:
        with socket.create_connection(address_of(url), timeout=10) as raw:
            raw.sendall(sent)
            assert b" 400 " in raw.recv(4096).splitlines()[0]
        assert httpx2.get(url + "/liveness").is_success
