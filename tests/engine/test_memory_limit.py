"""What requests may ask for follows from the memory that is free, and the error says what fits."""

from typing import Any

import msgspec
import pytest
from http_serving import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Limits, ModelInfo
from multimodal_gen.messages.validation import resolve
from multimodal_gen.scheduling.working_memory import within_memory

FLUX = 11_900_000_000
"""Parameters."""
IMAGES = msgspec.structs.replace(MODEL, limits=Limits(), size_multiple=16)
VIDEOS = msgspec.structs.replace(
    IMAGES,
    tasks=("text-to-video",),
    parameters=("num_frames", "fps"),
    frame_multiple=4,
    limits=Limits(max_frames=241),
)


def ask(model: ModelInfo, **params: Any) -> SamplingParams:
    return resolve(SamplingParams(prompt="a", **params), model)


def refusal(model: ModelInfo, **params: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ask(model, **params)
    return caught.value


def test_four_megapixels_are_no_limit_where_there_is_memory() -> None:
    model = within_memory(IMAGES, FLUX, 10 * 10**9)
    assert ask(model, width=4096, height=4096).width == 4096
    assert ask(IMAGES, width=8192, height=4096).width == 8192


def test_a_picture_that_does_not_fit_is_refused_with_a_size_that_does() -> None:
    model = within_memory(IMAGES, FLUX, 2 * 10**9)
    error = refusal(model, width=4096, height=2048)
    assert error.field == "size"
    assert error.message.endswith("does not fit into memory; memory allows about 3056x1520")
    assert ask(model, width=3056, height=1520).width == 3056


def test_a_video_that_does_not_fit_is_refused_with_frames_and_a_size_that_do() -> None:
    model = within_memory(VIDEOS, FLUX, 2 * 10**9)
    error = refusal(model, width=1280, height=720, num_frames=81)
    assert error.field == "num_frames"
    assert "or 17 frames of this size" in error.message
    assert ask(model, width=1280, height=720, num_frames=17).num_frames == 17


def test_there_is_a_limit_however_much_memory_there_is() -> None:
    model = within_memory(IMAGES, FLUX, 10**15)
    assert "33554432 pixels, such as 5792x5792" in refusal(model, width=8192, height=8192).message
    assert refusal(model, width=8208, height=64).field == "width"


def test_unknown_memory_sets_no_limit() -> None:
    assert within_memory(IMAGES, FLUX, 0) == IMAGES
