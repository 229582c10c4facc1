"""LTX-2 and 2.3 give the videos and the sound that diffusers' pipelines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers.pipelines.ltx2 import LTX2ConditionPipeline, LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES
from engineless import Output, load, run, run_joined, start
from parity import check_parity, check_same_picture
from tiny_checkpoints.families.ltx2 import SKIPPING
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]
Pipelines = Callable[[str], ComposedPipeline]

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 32,
    "width": 64,
    "num_frames": 5,
    "num_inference_steps": 3,
    "max_sequence_length": 32,
}
UNGUIDED = {
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "stg_scale": 0.0,
}
VIDEOS: list[dict[str, Any]] = [
    {"num_frames": 9, "negative_prompt": "blurry"},
    {**UNGUIDED, "num_frames": 1},
    {"num_frames": 13, "height": 96, "width": 32, "seed": 5, "modality_scale": 1.0},
    {"guidance_scale": 2.0, "audio_guidance_scale": 1.0, "guidance_rescale": 0.0},
    {"prompt": "a big RED cat, “riding” & flying " * 20, "stg_scale": 0.0},
]
"""Of the settings, video and sound share all but the guidance scale."""
SHARED = {"modality_scale": "audio_modality_scale", "guidance_rescale": "audio_guidance_rescale"}
NAMES = ("ltx2", "ltx2.3")


@pytest.fixture(scope="module")
def pipelines(checkpoints: Checkpoints) -> Pipelines:
    loaded: dict[str, ComposedPipeline] = {}

    def get(name: str) -> ComposedPipeline:
        if name not in loaded:
            loaded[name] = load(checkpoints(name))
        return loaded[name]

    return get


def stock_call(call: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What diffusers must be told to treat the sound like the video, and where it skips."""
    shared = {theirs: call[ours] for ours, theirs in SHARED.items() if ours in call}
    if "stg_scale" in call:
        shared["audio_stg_scale"] = call["stg_scale"]
    return {**SKIPPING, **shared, **more}


def without_skipping(name: str, call: dict[str, Any]) -> dict[str, Any]:
    """A request of a model that can't skip an attention has no setting for it."""
    return {n: v for n, v in call.items() if name == "ltx2.3" or n != "stg_scale"}


@pytest.mark.parametrize("change", VIDEOS, ids=lambda change: ",".join(change))
@pytest.mark.parametrize("name", NAMES)
def test_videos_and_their_sound_equal_diffusers(
    name: str, change: dict[str, Any], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    call = without_skipping(name, {**CALL, **change})
    check_parity(pipelines(name), checkpoints(name), stock_call=stock_call(call), **call)


@pytest.mark.parametrize(
    "change", [{"negative_prompt": "blurry"}, UNGUIDED], ids=["guided", "unguided"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_first_frame_is_continued_as_in_diffusers(
    name: str, change: dict[str, Any], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    call = without_skipping(name, {**CALL, "num_frames": 9, **change})
    check_parity(
        pipelines(name),
        checkpoints(name),
        stock=diffusers.LTX2ImageToVideoPipeline,
        stock_call=stock_call(call),
        image=picture(71, 90),
        **call,
    )


@pytest.mark.parametrize(
    "change",
    [{"num_frames": 9}, {**UNGUIDED, "height": 64, "width": 32}],
    ids=["guided", "unguided"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_first_and_a_last_frame_are_joined_as_in_diffusers(
    name: str, change: dict[str, Any], pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    call = without_skipping(name, {**CALL, **change})
    first, last = picture(71, 90), picture(50, 120)
    conditions = [LTX2VideoCondition(first, 0), LTX2VideoCondition(last, -1)]
    check_parity(
        pipelines(name),
        checkpoints(name),
        stock=LTX2ConditionPipeline,
        stock_call=stock_call(call, conditions=conditions),
        own_pictures={"image": np.asarray(first), "last_image": np.asarray(last)},
        **call,
    )


def test_the_frame_rate_is_an_input_and_sets_the_length_of_the_sound(
    pipelines: Pipelines, checkpoints: Checkpoints
) -> None:
    pipeline = pipelines("ltx2")
    stock = {**SKIPPING, "frame_rate": 12}
    check_parity(pipeline, checkpoints("ltx2"), stock_call=stock, own_call={"fps": 12}, **CALL)
    params = SamplingParams(**CALL)
    slow, usual = (sound_of(run(pipeline, params.updated(fps=fps))) for fps in (12, 24))
    assert slow.shape[1] > 1.8 * usual.shape[1]


def test_another_solver_equals_diffusers(pipelines: Pipelines, checkpoints: Checkpoints) -> None:
    call = {**CALL, **UNGUIDED}
    pipeline, folder = pipelines("ltx2.3"), checkpoints("ltx2.3")
    stock = {"solver": "unipc", "view": View.FLOW, "stock_call": stock_call(call)}
    check_parity(pipeline, folder, **stock, **call)


def test_a_distilled_checkpoint_has_the_noise_levels_it_was_trained_for(
    checkpoints: Checkpoints, pipelines: Pipelines
) -> None:
    pipeline = pipelines("ltx2-distilled")
    defaults = pipeline.model_info("test").defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (8, 1.0)
    call = {**CALL, "num_inference_steps": 8, **UNGUIDED}
    stock = stock_call(call, sigmas=DISTILLED_SIGMA_VALUES)
    check_parity(pipeline, checkpoints("ltx2-distilled"), stock_call=stock, **call)


def test_requests_of_different_guidance_share_a_batch(pipelines: Pipelines) -> None:
    pipeline = pipelines("ltx2.3")
    requests = [
        SamplingParams(**{**CALL, **change, "seed": seed})
        for seed, change in enumerate(
            [
                {},
                UNGUIDED,
                {"negative_prompt": "a dog", "stg_scale": 0.0, "num_inference_steps": 2},
                {"modality_scale": 1.0, "guidance_rescale": 0.2, "stg_scale": 3.0},
            ]
        )
    ]
    together = run_joined(pipeline, requests, joins=[0, 1, 0, 0])
    for params, other in zip(requests, together, strict=True):
        alone = run(pipeline, params)
        check_same_picture(alone, other)
        assert float(np.abs(sound_of(alone) - sound_of(other)).max()) < 1e-3


def test_requests_with_given_frames_share_a_batch(pipelines: Pipelines) -> None:
    pipeline = pipelines("ltx2.3")
    pictures = [
        {"image": np.asarray(picture(64, 64)), "last_image": np.asarray(picture(40 + i, 50))}
        for i in range(2)
    ]
    requests = [SamplingParams(**{**CALL, "seed": seed}) for seed in range(2)]
    together = run_joined(pipeline, requests, joins=[0, 1], pictures=pictures)
    for params, given, other in zip(requests, pictures, together, strict=True):
        check_same_picture(run(pipeline, params, given), other)


def test_a_preview_is_a_small_picture(pipelines: Pipelines) -> None:
    pipeline = pipelines("ltx2")
    state = start(pipeline, SamplingParams(**CALL), previews=True)
    pipeline.forward(Phase.DENOISE, [state], 1)
    assert state.preview is not None
    assert state.preview.shape == (32, 64, 3)


def test_only_models_that_can_skip_an_attention_have_a_scale_for_it(pipelines: Pipelines) -> None:
    plain, skipping = (pipelines(name).model_info("test") for name in NAMES)
    assert "stg_scale" in skipping.parameters
    assert "stg_scale" not in plain.parameters
    assert plain.sound


@pytest.mark.parametrize(
    ("given", "pictures", "field"),
    [
        ({"max_sequence_length": 30}, (), "max_sequence_length"),
        ({"num_frames": 1}, ("image", "last_image"), "num_frames"),
        ({}, ("last_image",), "last_image_path"),
        ({"num_frames": 7}, (), "num_frames"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, Any], pictures: tuple[str, ...], field: str, pipelines: Pipelines
) -> None:
    shown = {name: np.asarray(picture(40, 40)) for name in pictures}
    with pytest.raises(InvalidRequest) as error:
        run(pipelines("ltx2"), SamplingParams(**{**CALL, **given}), shown)
    assert error.value.field == field


def sound_of(output: Output) -> Any:
    assert output.sound is not None
    return output.sound
