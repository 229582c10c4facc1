"""Pages of other origins (CORS), and HEAD, which browsers and probes send."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from http_serving import IMAGES, app_with, app_without_engine, ask, serving

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest, QueueFull

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def app_for(*origins: str, **given: Any) -> FastAPI:
    return app_with(ends=QueueFull("full"), allowed_origins=origins, **given)


def preflight(app: FastAPI, origin: str) -> httpx2.Response:
    return ask(app, "OPTIONS", IMAGES, headers={"origin": origin, **PREFLIGHT})


def test_an_allowed_page_may_ask_before_it_sends_its_key() -> None:
    response = preflight(app_for(PAGE, api_key="one"), PAGE)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "x-stainless-os" in response.headers["access-control-allow-headers"]
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("given", [{}, {"api_key": "one"}])
def test_an_allowed_page_reads_answers_errors_and_their_headers(given: dict[str, Any]) -> None:
    app = app_for(PAGE, **given)
    for key, status in (("one", 429), ("two", 401 if given else 429)):
        headers = {"origin": PAGE, "authorization": f"Bearer {key}"}
        response = ask(app, "POST", IMAGES, json={"prompt": "a"}, headers=headers)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-expose-headers"] == "*"


@pytest.mark.parametrize("given", [{}, {"api_key": "one"}])
def test_other_pages_may_not_use_the_server(given: dict[str, Any]) -> None:
    app = app_for(PAGE, **given)
    assert preflight(app, OTHER).status_code == 400
    response = ask(app, "POST", IMAGES, json={"prompt": "a"}, headers={"origin": OTHER})
    assert response.status_code == (401 if given else 403)
    assert "access-control-allow-origin" not in response.headers


def test_a_star_allows_every_page() -> None:
    assert preflight(app_for("*"), OTHER).headers["access-control-allow-origin"] == "*"
    response = ask(app_for("*"), "POST", IMAGES, json={"prompt": "a"}, headers={"origin": OTHER})
    assert response.headers["access-control-allow-origin"] == "*"


def test_by_default_no_page_of_another_origin_is_allowed() -> None:
    app = app_for()
    assert "access-control-allow-origin" not in preflight(app, PAGE).headers
    response = ask(app, "POST", IMAGES, json={"prompt": "a"}, headers={"origin": PAGE})
    assert response.status_code == 403


@pytest.mark.parametrize("origin", ["app.example.com", "https://a.b/", "https://a.b/c", ""])
def test_what_is_no_origin_can_not_be_allowed(origin: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed_origins"):
        ServerArgs(allowed_origins=(origin,))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 503),
        ("/liveness", 200),
        ("/version", 200),
        ("/openapi.json", 200),
        ("/", 200),
        ("/docs", 200),
        ("/v1/jobs/events", 200),
        ("/v1/videos/x/content", 404),
        ("/files/a/b.png", 404),
        ("/v1/models", 503),
        ("/sdapi/v1/options", 503),
        ("/system_stats", 503),
        ("/nowhere", 404),
        (IMAGES, 405),
    ],
)
def test_head_is_answered_as_get_is_without_a_body(path: str, status: int) -> None:
    with serving(app_without_engine()) as url, httpx2.Client(timeout=60) as client:
        response = client.head(url + path)
        assert (response.status_code, response.content) == (status, b"")
        assert response.headers["x-request-id"]
        assert client.get(url + "/liveness").is_success  # on the same connection


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/sdapi/v1/nowhere", {"error", "detail", "body", "errors"}),
        ("/api/nowhere", {"error", "node_errors"}),
        ("/nowhere", {"error"}),
    ],
)
@pytest.mark.parametrize("given", [{}, {"api_key": "one"}])
def test_unknown_paths_answer_as_their_protocol_does(
    path: str, keys: set[str], given: dict[str, Any]
) -> None:
    response = ask(app_without_engine(**given), "GET", path)
    assert response.status_code == (401 if given else 404)
    assert response.json().keys() == keys
