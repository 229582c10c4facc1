"""Z-Image gives what diffusers' pipelines give, from text and from pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from engineless import load, run_each, run_joined
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

FROM_NOISE: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
    "guidance_scale": 0.0,
}
FROM_PICTURE: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "image": picture(70, 90),
    "num_inference_steps": 4,
    "guidance_scale": 0.0,
}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("zimage")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"guidance_scale": 5.0, "negative_prompt": "blurry " * 40},
        {"guidance_scale": 0.7},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 3},
        {"prompt": "a cat & “dog” <|im_end|> " * 60, "max_sequence_length": 1024},
    ],
    ids=lambda change: ",".join(change),
)
def test_z_image_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**FROM_NOISE, **change})


@pytest.mark.parametrize("change", [{"strength": 0.6}, {"strength": 0.3, "guidance_scale": 2.0}])
def test_z_image_from_a_picture_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(
        pipeline, folder, stock=diffusers.ZImageImg2ImgPipeline, **{**FROM_PICTURE, **change}
    )


@pytest.mark.parametrize("change", [{"strength": 1.0}, {"strength": 0.6, "guidance_scale": 2.0}])
def test_z_image_inpainting_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    call = {**FROM_PICTURE, "mask_image": picture(50, 40, "L"), **change}
    check_parity(pipeline, folder, stock=diffusers.ZImageInpaintPipeline, **call)


def test_z_image_with_a_dynamic_shift_equals_diffusers(
    checkpoints: Callable[..., Path],
) -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    folder = checkpoints("zimage", heads=3, scheduler=config)
    check_parity(load(folder), folder, **FROM_NOISE)


@pytest.mark.parametrize(("shift", "steps", "guidance"), [(3.0, 8, 0.0), (6.0, 50, 5.0)])
def test_the_shift_tells_turbo_from_the_base_model(
    checkpoints: Callable[..., Path], shift: float, steps: int, guidance: float
) -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}
    defaults = load(checkpoints("zimage", scheduler=config)).defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, guidance)


def test_rows_with_texts_of_unlike_lengths_do_not_see_each_others_padding(
    pipeline: ComposedPipeline,
) -> None:
    size: dict[str, Any] = {"width": 64, "height": 48, "num_inference_steps": 3}
    long = "a photo of a cat riding a horse " * 20
    requests = [
        SamplingParams(prompt="a dog", negative_prompt=long, guidance_scale=3.0, seed=1, **size),
        SamplingParams(prompt=long, guidance_scale=2.0, seed=2, **size),
        SamplingParams(prompt=long, seed=3, **size),
    ]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
        assert (one.latents - other.latents).abs().max() < 1e-4


def test_texts_are_refined_once_a_batch(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, refined = pipeline.components["transformer"], []
    of_all = transformer.refined
    monkeypatch.setattr(
        transformer, "refined", lambda *given: refined.append(len(given[0])) or of_all(*given)
    )
    run_each(pipeline, [SamplingParams(**FROM_NOISE | {"guidance_scale": 3.0})])
    assert refined == [2]  # both branches
