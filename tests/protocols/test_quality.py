"""The quality of requests in every protocol, and how many evaluations their results tell of."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import httpx2
import msgspec
import pytest
from fake_engine import FakeEngine
from http_serving import IMAGES, MODEL, app_over, app_with, ask, eventually, serving
from told import texts

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.python.calls import generate_one
from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.messages.reply import Evaluations
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.infotext import parse_infotext
from multimodal_gen.postprocess.metadata import read_infotext, read_parameters
from multimodal_gen.serving.operator_limits import bounded

COUNTED = {"computed": 6, "extrapolated": 14}
QUICK = msgspec.structs.replace(MODEL, qualities=("exact", "high", "fast"))
HEART = {"prompt": "a red heart"}


class CountingEngine(FakeEngine):
    """Ends every request at once, with some evaluations extrapolated."""

    def __init__(self) -> None:
        super().__init__(QUICK)
        self.asked: list[str] = []

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.asked.append(req.params.quality)
        self.finish(req.params.prompt)
        return handle

    def _end(self, request_id: str, outcome: Any) -> None:
        super()._end(request_id, replace(outcome, evaluations=Evaluations(**COUNTED)))


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def url(engine: CountingEngine) -> Iterator[str]:
    with serving(app_over(cast(SchedulerClient, engine))) as url:
        yield url


def made(url: str, **given: Any) -> dict[str, Any]:
    reply = httpx2.post(url + IMAGES, json={**HEART, **given}, timeout=60)
    return dict(reply.raise_for_status().json())


@pytest.mark.parametrize(
    ("asked", "given"), [(None, "exact"), ("high", "high"), ("fast", "fast"), ("hd", "exact")]
)
def test_an_image_is_made_with_the_quality_that_is_asked_for(
    engine: CountingEngine, url: str, asked: str | None, given: str
) -> None:
    made(url, quality=asked)
    assert engine.asked[-1] == given


def test_who_means_openais_highest_quality_is_told_what_is_made(url: str) -> None:
    (warning,) = texts(made(url, quality="high")["warnings"])
    assert "quality=exact computes all" in warning
    assert "warnings" not in made(url, quality="fast")


def test_results_and_files_tell_how_many_evaluations_were_computed(url: str) -> None:
    (data,) = made(url, quality="fast")["data"]
    assert data["evaluations"] == COUNTED
    file = base64.b64decode(data["b64_json"])
    recipe = read_parameters(file)
    assert (recipe.params.quality, recipe.evaluations) == ("fast", Evaluations(**COUNTED))
    assert parse_infotext(read_infotext(file))["Quality"] == "fast"


def test_jobs_tell_it_when_they_are_done(url: str) -> None:
    job = made(url, quality="fast", run_in_background=True)
    status = f"{url}/v1/jobs/{job['id']}"
    assert eventually(lambda: httpx2.get(status).json()["status"] == "completed")
    done = httpx2.get(status).json()
    assert done["outputs"][0]["evaluations"] == COUNTED
    assert done["parameters"]["quality"] == "fast"
    (data,) = httpx2.get(f"{url}/v1/images/jobs/{job['id']}").json()["data"]
    assert data["evaluations"] == COUNTED


def test_a_result_in_python_tells_it(engine: CountingEngine) -> None:
    params = SamplingParams(**HEART, seed=1, num_inference_steps=20, width=96, height=96)
    result = asyncio.run(generate_one(cast(SchedulerClient, engine), params))
    assert result.evaluations == result.recipe().evaluations == Evaluations(**COUNTED)


@pytest.mark.parametrize(
    ("lowest", "allowed"),
    [("fast", ["exact", "high", "fast"]), ("high", ["exact", "high"]), ("exact", ["exact"])],
)
def test_the_operator_sets_the_lowest_quality(lowest: Any, allowed: list[str]) -> None:
    model = bounded(QUICK, ServerArgs(min_quality=lowest))
    assert [*model.qualities] == allowed
    app = app_with(model=QUICK, ends=QueueFull("full"), min_quality=lowest)
    for quality in ("exact", "fast"):
        answer = ask(app, "POST", IMAGES, json={**HEART, "quality": quality})
        assert answer.status_code == (429 if quality in allowed else 400)
        if quality not in allowed:
            assert answer.json()["error"]["param"] == "quality"


def test_openais_high_is_no_error_where_the_operator_wants_exact_pictures() -> None:
    app = app_with(model=QUICK, ends=QueueFull("full"), min_quality="exact")
    assert ask(app, "POST", IMAGES, json={**HEART, "quality": "high"}).status_code == 429


def test_a_lowest_quality_is_one_of_three() -> None:
    with pytest.raises(InvalidRequest, match=r"min_quality.*exact, high, fast"):
        ServerArgs(min_quality="best")  # type: ignore[arg-type]
