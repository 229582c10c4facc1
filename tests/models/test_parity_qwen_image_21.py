"""Qwen-Image 2.1 gives what diffusers' pipeline gives, from text and from images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run, run_each, run_joined
from parity import check_parity
from tiny_checkpoints import build, stock_pipeline
from tiny_checkpoints.families.qwen_image_21 import SIDE
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.models.dits.qwen_image_21.config import QwenImage21Config
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families import qwen_image_21

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 64,
    "width": 96,
    "num_inference_steps": 3,
}
GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": "blurry, low quality"}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("qwenimage21")


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen_image_21, "PICTURE_AREA", SIDE**2)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7, **GUIDED},
        {"true_cfg_scale": 1.0, "negative_prompt": "blurry"},
        {"height": 32, "width": 160, "num_inference_steps": 2, **GUIDED, "negative_prompt": ""},
        {"prompt": ""},
        {"prompt": "a {small} <|im_end|>cat & “dog”\n" * 9},
    ],
    ids=lambda change: ",".join(change),
)
def test_qwen_image_21_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


@pytest.mark.parametrize(
    "pictures",
    [
        [picture(70, 90)],
        [picture(40, 130, "L"), picture(96, 96)],
        [picture(70, 90), picture(50, 140), picture(33, 33)],
    ],
    ids=len,
)
@pytest.mark.parametrize("guided", [{}, GUIDED], ids=["", "guided"])
def test_qwen_image_21_with_images_equals_diffusers(
    pipeline: ComposedPipeline,
    folder: Path,
    small_pictures: None,
    pictures: list[Any],
    guided: dict[str, Any],
) -> None:
    shown = {"image": pictures, "stock_call": {"output_resolution": SIDE}}
    check_parity(pipeline, folder, **CALL, **guided, **shown)


def test_a_distilled_checkpoints_noise_levels_are_its_defaults(tmp_path: Path) -> None:
    levels = [1.0, 0.8, 0.3]
    folder = build("qwenimage21-turbo", tmp_path)
    assert stock_pipeline(folder).config.sample_sigmas == levels
    pipeline = load(folder)
    assert pipeline.defaults.num_inference_steps == len(levels)
    check_parity(pipeline, folder, **CALL)


def test_rows_with_prefixes_of_unlike_lengths_do_not_see_each_others_padding(
    pipeline: ComposedPipeline,
) -> None:
    long = "a photo of a cat riding a horse " * 20
    changes: list[dict[str, Any]] = [
        {"prompt": "a dog", "negative_prompt": long, "true_cfg_scale": 3.0},
        {"prompt": long, "seed": 2},
        {"prompt": long[:-40], "seed": 3, "num_inference_steps": 2},
    ]
    requests = [SamplingParams(**{**CALL, **change}) for change in changes]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
        assert (one.latents - other.latents).abs().max() < 1e-4


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_text_with_the_token_of_an_image_is_refused(
    pipeline: ComposedPipeline, field: str
) -> None:
    params = SamplingParams(**{**CALL, **GUIDED, field: "a <|image_pad|> b"})
    with pytest.raises(InvalidRequest, match="must not contain") as refused:
        run(pipeline, params)
    assert refused.value.field == field


def test_a_model_whose_prefix_changes_with_the_timestep_is_refused() -> None:
    with pytest.raises(InvalidCheckpoint, match="causal_condition"):
        QwenImage21Config.from_dict({"causal_condition": False})
