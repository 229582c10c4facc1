"""What a running server tells of itself: metrics, logs and traces."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine
from fastapi import FastAPI
from http_serving import IMAGES, app_over, app_with, app_without_engine, ask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Message

from multimodal_gen import errors
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http import app as http_app
from multimodal_gen.entrypoints.http.ops.docs.schema import schema_of
from multimodal_gen.entrypoints.http.ops.metrics import Reports, since_acceptance
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.observability import logging as our_logging
from multimodal_gen.observability.context import RequestContext, enter, leave, trace_id_of
from multimodal_gen.observability.logging import JsonLines, configure_logging
from multimodal_gen.observability.tracing import Tracing, tracing_from_environment
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
TWO = {"prompt": "a red heart", "n": 2, "num_inference_steps": 3, "size": "96x96"}
MODEL = 'model="bundled_model"'


def scraped(app: FastAPI, accept: str = "") -> dict[str, float]:
    """Every sample by its name and labels."""
    text = ask(app, "GET", "/metrics", headers={"accept": accept}).text
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def app(engine: EngineProcess, spans: InMemorySpanExporter) -> Iterator[FastAPI]:
    """An app over an engine, that was asked for two pictures in a trace."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_app, "tracing_from_environment", lambda: Tracing(provider))
        engine.wait_ready(90)
        app = app_over(engine.client)
    headers = {"traceparent": TRACEPARENT}
    assert ask(app, "POST", IMAGES, json=TWO, headers=headers, timeout=60).is_success
    yield app
    provider.shutdown()


# -- metrics


def test_requests_pictures_and_times_are_counted(app: FastAPI) -> None:
    found = scraped(app)
    assert found[f'multimodal_gen_requests_total{{{MODEL},status="completed"}}'] == 2
    assert found[f"multimodal_gen_images_total{{{MODEL}}}"] == 2
    assert found[f"multimodal_gen_pixels_total{{{MODEL}}}"] == 2 * 96 * 96
    assert found[f"multimodal_gen_request_latency_seconds_count{{{MODEL}}}"] == 2
    assert found["multimodal_gen_queue_time_seconds_count"] == 2
    assert found["multimodal_gen_denoise_step_seconds_count"] == 2
    assert found["multimodal_gen_generation_batch_size_count"] == 6
    for stage in ("encode", "denoise", "decode"):
        name = f'multimodal_gen_stage_host_latency_seconds_count{{stage="{stage}"}}'
        assert found[name] == 2


def test_time_in_the_queue_of_the_front_is_time_in_the_queue() -> None:
    known = {"queued": 1.0, "denoise": 3.0, "total": 4.0}
    assert since_acceptance(known, 10.0) == {"queued": 7.0, "denoise": 3.0, "total": 10.0}


def test_the_engines_state_is_told(app: FastAPI) -> None:
    found = scraped(app)
    engine = f'engine="default",{MODEL}'
    assert found[f'multimodal_gen_worker_up{{{engine},rank="0"}}'] == 1
    assert found[f'multimodal_gen_engine_status{{{engine},status="ready"}}'] == 1
    assert found[f"multimodal_gen_engine_in_flight_reqs{{{engine}}}"] == 0
    assert found[f"multimodal_gen_engine_restarts_total{{{engine}}}"] == 0
    assert found[f"multimodal_gen_num_running_reqs{{{MODEL}}}"] == 0
    assert found[f"multimodal_gen_num_queue_reqs{{{MODEL}}}"] == 0
    assert found[f"multimodal_gen_predicted_backlog_seconds{{{MODEL}}}"] == 0
    assert found[f"multimodal_gen_jobs_not_taken{{{MODEL}}}"] == 0
    loading = scraped(app_without_engine())
    assert loading['multimodal_gen_worker_up{engine="default",model="default",rank="0"}'] == 0


def test_answers_are_counted_by_the_template_of_their_route(app: FastAPI) -> None:
    for path in ("/v1/models/a", "/v1/models/b", "/nowhere/1", "/nowhere/2"):
        ask(app, "GET", path)
    ask(app, "BREW", "/version")
    found = scraped(app)
    template = 'handler="/v1/models/{name:path}",method="GET",status="404"'
    assert found[f"http_requests_total{{{template}}}"] == 2
    assert found['http_requests_total{handler="unmatched",method="GET",status="404"}'] == 2
    assert found['http_requests_total{handler="/version",method="other",status="405"}'] == 1
    assert found[f'http_request_duration_seconds_count{{handler="{IMAGES}",method="POST"}}'] == 1
    assert found["http_requests_inprogress"] == 1  # this one


def test_labels_name_neither_prompts_nor_requests(app: FastAPI) -> None:
    text = ask(app, "GET", "/metrics").text
    assert "heart" not in text
    assert set(re.findall(r"(\w+)=\"", text)) == {
        *("model", "engine", "status", "stage", "rank", "handler", "method", "le", "key"),
    }


def test_openmetrics_is_told_to_who_asks_for_it(app: FastAPI) -> None:
    response = ask(app, "GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("ends", "status"),
    [(errors.QueueFull("full"), "failed"), (errors.Cancelled("gone"), "cancelled")],
)
def test_requests_that_end_otherwise_are_counted_so(
    ends: errors.MultimodalGenError, status: str
) -> None:
    app = app_with(ends=ends)
    ask(app, "POST", IMAGES, json={"prompt": "a", "n": 3})
    name = f'multimodal_gen_requests_total{{model="owner/name",status="{status}"}}'
    assert scraped(app)[name] == 3


@pytest.mark.parametrize("ends", ["finish", "cancel"])
def test_durations_do_not_follow_a_step_of_the_systems_clock(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    now, seconds = time.time, []
    metrics = SimpleNamespace(made=lambda *_: None, ended=lambda *given: seconds.append(given[-1]))

    async def test() -> None:
        engine = FakeEngine()
        service = Service.over(engine)  # type: ignore[arg-type]
        service.observers.append(Reports(metrics, None))
        task = service.start(SamplingParams(prompt="a"), owner=Owner())
        monkeypatch.setattr(time, "time", lambda: now() - 86400)
        if ends == "finish":
            engine.finish("a")
        else:
            task.cancel()
        async for _ in task.changes():
            pass

    asyncio.run(test())
    assert len(seconds) == 1
    assert 0 <= seconds[0] < 60


def test_requests_for_which_there_is_no_room_are_counted_so(engine: EngineProcess) -> None:
    app = app_over(engine.client, max_queue_size=1)
    assert ask(app, "POST", IMAGES, json=TWO).status_code == 429
    assert scraped(app)[f'multimodal_gen_requests_total{{{MODEL},status="refused"}}'] == 2


# -- traces


def test_a_request_is_a_span_of_the_callers_trace(
    app: FastAPI, spans: InMemorySpanExporter
) -> None:
    (span,) = by_name(spans)[f"POST {IMAGES}"]
    assert span.parent is not None
    assert (format(span.context.trace_id, "032x"), span.parent.span_id) == (TRACE, int(SPAN, 16))
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200


def test_each_output_has_a_span_with_one_for_each_phase(
    app: FastAPI, spans: InMemorySpanExporter
) -> None:
    found = by_name(spans)
    (request,) = found[f"POST {IMAGES}"]
    outputs = {span.context.span_id: span for span in found["generate_content"]}
    assert {span.parent.span_id for span in outputs.values()} == {request.context.span_id}
    for phase in ("queued", "encode", "denoise", "decode"):
        assert {span.parent.span_id for span in found[phase]} == outputs.keys()
    for output in outputs.values():
        assert request.start_time <= output.start_time <= output.end_time


def by_name(spans: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[Any]] = {}
    for span in spans.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def test_tracing_is_off_unless_the_environment_says_where_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tracing_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = tracing_from_environment()
    assert tracing is not None
    tracing.close()


def test_tracing_is_off_without_its_package(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    assert tracing_from_environment() is None
    assert "not installed" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_traceparent_names_no_trace(given: str) -> None:
    assert trace_id_of(given) is None
    assert trace_id_of(TRACEPARENT) == TRACE


# -- logs


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """`lines(app, …)`: what the front logs of a request, as JSON."""

    def logged(app: FastAPI, method: str, path: str, **request: Any) -> list[dict[str, Any]]:
        configure_logging("front", "json")  # to the stderr of now
        ask(app, method, path, **request)
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    return logged


def test_an_answer_is_a_line_with_what_is_known_of_it(lines: Any) -> None:
    app = app_without_engine(api_key="secret")
    headers = {
        "authorization": "Bearer secret",
        "x-request-id": "mine",
        "traceparent": TRACEPARENT,
    }
    (line,) = lines(app, "GET", "/v1/models/a%20b?key=secret", headers=headers)
    assert line.pop("duration_s") >= 0
    assert line.pop("time").endswith("+00:00")
    assert re.fullmatch(r"GET /v1/models/a%20b 503 in \d\.\d+ s", line.pop("message"))
    assert line == {
        "level": "info",
        "process": "front",
        "logger": "multimodal_gen.access",
        "request_id": "mine",
        "trace_id": TRACE,
        "owner": "default",
        "method": "GET",
        "route": "/v1/models/{name:path}",
        "status": 503,
        "client": "127.0.0.1",
    }


def test_lines_of_a_request_name_it_and_nothing_names_the_key(lines: Any) -> None:
    app = app_with(ends=errors.GenerationFailed("it broke"), api_key="secret")
    headers = {"authorization": "Bearer secret", "x-request-id": "mine"}
    found = lines(app, "POST", IMAGES, json={"prompt": "a"}, headers=headers)
    assert {line["request_id"] for line in found} == {"mine"}
    assert any("it broke" in line["message"] for line in found)
    assert "secret" not in json.dumps(found)


def test_who_leaves_within_a_body_is_no_error() -> None:
    app = app_with(ends=errors.QueueFull("full"))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": IMAGES,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert not sent
    name = f'http_requests_total{{handler="{IMAGES}",method="POST",status="499"}}'
    assert scraped(app)[name] == 1


def test_probes_are_not_logged(lines: Any) -> None:
    app = app_without_engine()
    for path in ("/health", "/liveness", "/metrics"):
        assert lines(app, "GET", path) == []


def test_an_exception_is_a_field_of_its_line() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, "", 0, "it %s", ("broke",), info)
    line = json.loads(JsonLines("front").format(record))
    assert line["message"] == "it broke"
    assert "ValueError: why" in line["exception"]


def test_a_line_of_text_ends_with_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    handler = our_logging.handler_of("front", "text")
    token = enter(RequestContext("mine"))
    handler.handle(logging.makeLogRecord({"name": "a", "levelname": "INFO", "msg": "hello"}))
    leave(token)
    assert capsys.readouterr().err.endswith(" INFO front a: hello request_id=mine\n")


# -- what the server says of itself


def test_server_info_shows_how_it_was_started_without_keys() -> None:
    hook = {"webhook_url": "https://host/private-3", "webhook_secret": "whsec_cHJpdmF0ZS00"}
    app = app_without_engine(api_key="private-1", admin_key="private-2", max_pixels=1000, **hook)
    answer = ask(app, "GET", "/server_info", headers={"authorization": "Bearer private-1"})
    assert answer.json()["server_args"]["max_pixels"] == 1000
    assert answer.json()["health"]["phase"] == "loading"
    assert not any(given in answer.text for given in ("private", "whsec"))


def test_the_docs_take_nothing_from_another_host() -> None:
    page = ask(app_without_engine(), "GET", "/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"(https?:)?//", page.text)


def test_the_schema_says_how_keys_are_sent_and_no_422() -> None:
    app = FastAPI()

    @app.get("/{number}")
    def route(number: int) -> int:
        return number

    schema = schema_of(app, needs_key=True)
    assert schema["security"] == [{"api_key": []}]
    assert list(schema["paths"]["/{number}"]["get"]["responses"]) == ["200"]
    assert "ValidationError" not in json.dumps(schema)


def test_without_keys_the_schema_names_none() -> None:
    assert "security" not in schema_of(FastAPI(), needs_key=False)
