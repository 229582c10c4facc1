"""The parameters of a request's noise levels, from every client to the engine."""

from __future__ import annotations

import msgspec
import pytest
from http_serving import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.cli.main import app
from multimodal_gen.entrypoints.http.hugging_face.body import understood
from multimodal_gen.entrypoints.http.openai.schema import ImagesRequest
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.validation import resolve
from multimodal_gen.postprocess.metadata import Recipe

FLOW = msgspec.structs.replace(
    MODEL,
    schedulers=("flow_euler", "flow_heun"),
    noise_schedules=("normal", "beta", "simple"),
    parameters=("flow_shift", "sigmas"),
)
SIGMAS = (1.0, 0.6, 0.2)


def test_the_command_line_takes_levels_and_names() -> None:
    line = ["generate", "--prompt", "x", "--sigmas", "1", "0.6", "0.2", "--timestep-spacing"]
    _, bound, _ = app.parse_args([*line, "trailing", "--noise-schedule", "karras"])
    params = bound.arguments["params"].common()
    assert params.sigmas == SIGMAS
    assert (params.timestep_spacing, params.noise_schedule) == ("trailing", "karras")


def test_bodies_of_openai_take_levels() -> None:
    body = ImagesRequest.model_validate({"prompt": "x", "sigmas": [1, 0.6, 0.2]}, strict=True)
    assert SamplingParams.from_fields(**body.given()).sigmas == SIGMAS


def test_bodies_of_hugging_face_take_levels() -> None:
    body = {"inputs": "x", "parameters": {"sigmas": [1.0, 0.6, 0.2]}}
    assert understood(b"", body, FLOW, 10_000).params.sigmas == SIGMAS


def test_levels_travel_and_stand_in_the_metadata() -> None:
    params = SamplingParams(prompt="x", sigmas=SIGMAS, noise_schedule="normal", seed=1)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams)
    assert packed == params
    read = msgspec.json.decode(Recipe(params, "model").to_json(), type=Recipe)
    assert read.params == params


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigmas": [1.5, 0.5]}, "at most 1 for flow matching"),
        ({"sigmas": 0.5}, "a list of numbers"),
        ({"sigmas": [1.0, True]}, "a list of numbers"),
        ({"sigmas": [10**400]}, "0 to 1000"),
        ({"sigmas": [1.0], "scheduler": "flow_heun"}, "schedulers that take them: flow_euler"),
        ({"noise_schedule": "beta", "scheduler": "flow_heun"}, "flow_heun allows normal"),
        ({"timestep_spacing": "trailing"}, "not supported by"),
        ({"timestep_spacing": "random"}, "must be leading, trailing or linspace"),
    ],
)
def test_a_bad_schedule_is_refused_before_it_is_sent(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolve(SamplingParams.from_fields(prompt="x", **given), FLOW)


def test_more_levels_than_steps_are_allowed_is_refused() -> None:
    levels = [1 - i / 2000 for i in range(1500)]
    with pytest.raises(InvalidRequest, match="num_inference_steps=1500"):
        resolve(SamplingParams(prompt="x", sigmas=tuple(levels)), FLOW)
