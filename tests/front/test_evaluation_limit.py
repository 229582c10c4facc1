"""What nothing could interrupt is refused at the door, with what would fit."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from comfyui_client import default_graph
from dispatched import ANNE, Front, run
from http_serving import IMAGES, MODEL, app_over, ask

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import Limits
from multimodal_gen.serving.evaluation_limit import check_evaluation
from multimodal_gen.serving.owner import Share

SLOW = EvaluationCosts(tuple((2**power, 2.0 ** (power - 7)) for power in range(4, 22)))
"""A second for 128 tokens, and as much for each further 128."""
VIDEO = msgspec.structs.replace(MODEL, frame_multiple=4, limits=Limits(max_frames=241))


def refusal(limit_s: float, model: Any = MODEL, **params: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_evaluation(SamplingParams(prompt="a", **params), model, SLOW, limit_s)
    return caught.value


def test_seconds_follow_the_tokens_and_tokens_the_seconds() -> None:
    assert SLOW.seconds(128) == pytest.approx(1)
    assert SLOW.seconds(200) == pytest.approx(200 / 128)
    assert SLOW.seconds(2**23) == pytest.approx(2.0**16)
    assert SLOW.tokens(10) == pytest.approx(1280, abs=1)
    assert EvaluationCosts().seconds(10**9) == 0


def test_a_size_that_takes_too_long_is_refused_with_one_that_fits() -> None:
    error = refusal(30, width=2048, height=1024)
    assert error.field == "size"
    assert "about 64 s" in error.message
    assert "max_evaluation_s=30 allows about 1392x688" in error.message
    fitting = SamplingParams(prompt="a", width=1392, height=688)
    check_evaluation(fitting, MODEL, SLOW, 30)


def test_a_video_that_takes_too_long_is_refused_with_frames_and_a_size_that_fit() -> None:
    error = refusal(30, VIDEO, width=640, height=480, num_frames=81)
    assert error.field == "num_frames"
    assert "or 9 frames of this size" in error.message
    check_evaluation(
        SamplingParams(prompt="a", width=640, height=480, num_frames=9), VIDEO, SLOW, 30
    )
    assert "frames of this size" not in refusal(1, VIDEO, width=640, height=480).message


@pytest.mark.parametrize(
    ("device", "keys", "given", "refused"),
    [
        ("cpu", 1, None, False),
        ("cpu", 2, None, True),
        ("cuda", 1, None, True),
        ("cuda", 2, 0.0, False),
        ("cpu", 1, 10.0, True),
        ("cpu", 1, 1e6, False),
    ],
)
def test_the_limit_is_on_where_the_engine_is_shared_or_a_gpu_unless_it_is_given(
    device: str, keys: int, given: float | None, refused: bool
) -> None:
    async def test(front: Front) -> None:
        front.service.grant({str(index): Share() for index in range(keys)})
        front.engine.costs = SLOW
        if refused:
            with pytest.raises(InvalidRequest, match="max_evaluation_s"):
                front.ask("a", ANNE, width=2048, height=2048)
            front.ask("small", ANNE, width=256, height=256)
        else:
            front.ask("a", ANNE, width=2048, height=2048)

    run(
        test,
        ServerArgs(max_evaluation_s=given),
        model=msgspec.structs.replace(MODEL, device=device),
    )


GRAPH = default_graph()
GRAPH["5"]["inputs"] |= {"width": 2048, "height": 2048}
ROUTES = {
    IMAGES: {"prompt": "a", "size": "2048x2048"},
    f"{IMAGES}?": {"prompt": "a", "size": "2048x2048", "run_in_background": True},
    "/prompt": {"prompt": GRAPH},
    "/sdapi/v1/txt2img": {"prompt": "a", "width": 2048, "height": 2048},
    "/hf": {"inputs": "a", "parameters": {"width": 2048, "height": 2048}},
}


@pytest.mark.parametrize("route", ROUTES)
def test_it_is_refused_over_http_before_anything_is_accepted(route: str) -> None:
    class Engine:
        model, num_ranks, died, costs = MODEL, 1, None, SLOW

        def submit(self, *_: object) -> None:
            raise AssertionError("accepted")

    app = app_over(Engine(), max_evaluation_s=30)  # type: ignore[arg-type]
    reply = ask(app, "POST", route, json=ROUTES[route])
    assert reply.status_code in (400, 422), reply.text
    assert "max_evaluation_s=30 allows about 976x976" in reply.text


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_the_limit_is_a_number_of_seconds(value: float) -> None:
    with pytest.raises(InvalidRequest, match="max_evaluation_s"):
        ServerArgs(max_evaluation_s=value)
