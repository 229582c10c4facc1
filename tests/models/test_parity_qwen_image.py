"""Qwen-Image gives what diffusers' pipelines give, from text and from pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from engineless import load, run, run_each, run_joined
from parity import check_parity
from tiny_checkpoints.pictures import picture
from tiny_checkpoints.schedulers import FLUX_DEV

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
}
GUIDED = {"true_cfg_scale": 4.0, "negative_prompt": " "}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("qwenimage")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"seed": 7, **GUIDED},
        {"true_cfg_scale": 2.5, "negative_prompt": "blurry, low quality " * 9},
        {"true_cfg_scale": 1.0, "negative_prompt": "blurry"},
        {"height": 112, "width": 64, "num_inference_steps": 2},
        {"prompt": "", "max_sequence_length": 3},
        {"prompt": "a cat " * 600, "max_sequence_length": 1024},
        {"prompt": "a {small} <|im_end|>cat & “dog”\n"},
    ],
    ids=lambda change: ",".join(change),
)
def test_qwen_image_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_qwen_image_with_unipc_equals_diffusers(checkpoints: Callable[..., Path]) -> None:
    # With Qwen-Image's own config, diffusers forgets the shift's range when classes change.
    folder = checkpoints("qwenimage", scheduler=FLUX_DEV)
    check_parity(load(folder), folder, solver="unipc", view=View.FLOW, **CALL, **GUIDED)


@pytest.mark.parametrize(
    "change",
    [{"strength": 0.5}, {"strength": 0.3, "num_inference_steps": 5, **GUIDED}, {"strength": 1.0}],
    ids=lambda change: ",".join(change),
)
def test_qwen_image_from_a_picture_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    call = {**CALL, "image": picture(70, 90), **change}
    check_parity(pipeline, folder, stock=diffusers.QwenImageImg2ImgPipeline, **call)


@pytest.mark.parametrize("change", [{"strength": 0.6}, {"strength": 1.0, "seed": 3, **GUIDED}])
def test_qwen_image_inpainting_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    pictures = {"image": picture(100, 60), "mask_image": picture(50, 40, "L")}
    check_parity(
        pipeline, folder, stock=diffusers.QwenImageInpaintPipeline, **{**CALL, **pictures, **change}
    )


def test_rows_with_texts_of_unlike_lengths_do_not_see_each_others_padding(
    pipeline: ComposedPipeline,
) -> None:
    long = "a photo of a cat riding a horse " * 20
    changes: list[dict[str, Any]] = [
        {"prompt": "a dog", "negative_prompt": long, "true_cfg_scale": 3.0},
        {"prompt": long, "negative_prompt": "", "seed": 2},
        {"prompt": long, "seed": 3, "num_inference_steps": 2},
    ]
    requests = [SamplingParams(**{**CALL, **change}) for change in changes]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
        assert (one.latents - other.latents).abs().max() < 1e-4


@pytest.mark.parametrize("solver", ["flow_euler", "unipc"])
def test_one_step_is_refused_where_the_schedule_would_divide_by_nothing(
    pipeline: ComposedPipeline, solver: str
) -> None:
    with pytest.raises(InvalidRequest, match="too few"):
        run(pipeline, SamplingParams(**{**CALL, "num_inference_steps": 1}, scheduler=solver))
