"""Sizes that a checkpoint can draw, and parameters that change nothing, without an engine."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from http_serving import MODEL, VIDEO_MODEL
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import requests_of

DRAWN = Limits(smallest_side=96, largest_side=128)
SMALL = msgspec.structs.replace(
    MODEL, name="emoji", tasks=("text-to-image", "image-to-image"), limits=DRAWN
)
UNGUIDED = msgspec.structs.replace(MODEL, no_effect=("guidance_scale", "negative_prompt"))
TRUE_CFG = msgspec.structs.replace(
    MODEL,
    no_effect=("guidance_scale",),
    parameters=("true_cfg_scale",),
    defaults=Defaults(width=96, height=96, num_inference_steps=4, true_cfg_scale=1.5),
)
PICTURE = {"image": header_of(np.zeros((1000, 500, 3), np.uint8))}


def asked(model: ModelInfo, pictures: Any = None, **params: Any) -> Req:
    (req,) = requests_of(SamplingParams(prompt="a", seed=1, **params), model, pictures or {})
    return req


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_side_that_the_model_cannot_draw_is_refused_with_those_that_it_can(side: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(SMALL, **{side: 512})
    assert caught.value.field == side
    assert str(caught.value) == (
        f"{side}=512: must be at most 128: emoji draws 96x96 to 128x128 pixels "
        "(96x96 if no size is given)"
    )


def test_a_smaller_side_than_it_was_trained_for_is_warned_of() -> None:
    (warning,) = asked(SMALL, width=64).warnings
    assert (warning.code, warning.field) == ("small_size", "width")
    assert str(warning) == "width=64: emoji draws 96x96 to 128x128 pixels"
    assert asked(SMALL, width=96, height=128).warnings == ()


def test_a_size_that_follows_from_a_picture_is_one_that_it_can_draw() -> None:
    own = msgspec.structs.replace(SMALL, picture_size="own", size_multiple=8)
    params = asked(own, PICTURE).params
    assert (params.width, params.height) == (64, 128)


def test_shapes_that_are_too_long_are_refused() -> None:
    square = msgspec.structs.replace(MODEL, limits=Limits(largest_aspect=2))
    assert asked(square, width=128, height=64).params.width == 128
    with pytest.raises(InvalidRequest, match="size='144x64': owner/name draws shapes of at most 2"):
        asked(square, width=144, height=64)


def test_a_second_pass_may_be_larger_and_is_warned_of() -> None:
    enlarging = msgspec.structs.replace(
        SMALL, parameters=("upscale",), upscale_ways=("second-pass",)
    )
    (warning,) = asked(enlarging, upscale="2:0.3").warnings
    assert (warning.code, warning.field) == ("large_size", "upscale")
    assert "192x192 in the second pass: emoji draws 96x96 to 128x128" in str(warning)
    assert asked(enlarging, upscale="1.3:0.3").warnings == ()


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        (UNGUIDED, {"guidance_scale": 7.0}, "guidance_scale has no effect: this model does not"),
        (UNGUIDED, {"negative_prompt": "b"}, "negative_prompt has no effect: this model has no"),
        (
            TRUE_CFG,
            {"guidance_scale": 7.0},
            "guidance_scale has no effect: this model is guided",
        ),
        (MODEL, {"strength": 0.5}, "strength has no effect without an input image"),
        (MODEL, {"keep_unmasked": True}, "keep_unmasked has no effect without a mask"),
    ],
)
def test_a_parameter_without_effect_is_named_and_not_claimed(
    model: ModelInfo, params: dict[str, Any], told: str
) -> None:
    req = asked(model, **params)
    (warning,) = req.warnings
    (name,) = params
    assert (warning.code, warning.field) == ("no_effect", name)
    assert str(warning).startswith(told)
    assert getattr(req.params, name) in (None, False)


def test_the_models_own_value_needs_no_warning() -> None:
    assert asked(UNGUIDED, guidance_scale=UNGUIDED.defaults.guidance_scale).warnings == ()


def test_a_value_that_no_model_takes_is_refused_even_if_it_would_have_no_effect() -> None:
    with pytest.raises(InvalidRequest, match="guidance_scale=-1"):
        asked(UNGUIDED, guidance_scale=-1.0)


def test_adapters_of_scale_zero_are_warned_of() -> None:
    model = msgspec.structs.replace(MODEL, parameters=("lora",))
    req = asked(model, lora=({"name": "ink", "scale": 0.0}, {"name": "oil"}))
    assert texts(req.warnings) == ["lora='ink' has no effect: its scale is 0"]


def test_a_video_parameter_of_a_model_of_pictures_says_what_it_makes() -> None:
    with pytest.raises(InvalidRequest, match="num_frames=9: this model makes pictures, not videos"):
        asked(MODEL, num_frames=9)
    assert asked(MODEL, num_frames=1).warnings == ()
    assert asked(VIDEO_MODEL, num_frames=9).params.num_frames == 9


def test_cfg_of_other_programs_is_the_scale_that_guides_the_model() -> None:
    assert MODEL.cfg_parameter == "guidance_scale"
    assert TRUE_CFG.cfg_parameter == "true_cfg_scale"
    unguided_by_itself = Defaults(width=96, height=96, num_inference_steps=4, true_cfg_scale=1.0)
    on_request = msgspec.structs.replace(TRUE_CFG, defaults=unguided_by_itself)
    assert on_request.cfg_parameter == "guidance_scale"
