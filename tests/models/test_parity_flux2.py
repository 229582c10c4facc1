"""FLUX.2 klein gives what diffusers' Flux2KleinPipeline gives, with and without a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from engineless import load, run, run_each, run_joined, start
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import named_images
from multimodal_gen.runtime.models.vaes.reference_images import crop_reference, reference_size
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

TEXT: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "max_sequence_length": 40,
}
CALL = {**TEXT, "height": 48, "width": 80}


@pytest.fixture(scope="module", params=["flux2-klein", "flux2-klein-base"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"guidance_scale": 1.0},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 512},
        {"prompt": "a cat & “dog” <|im_end|> " * 30},
    ],
    ids=lambda change: ",".join(change),
)
def test_klein_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


@pytest.mark.parametrize(
    "call",
    [
        {**CALL, "image": picture(80, 64)},
        {**TEXT, "image": picture(90, 71)},
        {**TEXT, "image": picture(67, 130, "L"), "seed": 3},
        {**TEXT, "image": [picture(90, 71), picture(67, 130, "L")]},
        {**CALL, "image": [picture(200, 64, "P"), picture(90, 71), picture(64, 90, "CMYK")]},
    ],
    ids=["size of its own", "size of the picture", "tall and grey", "two", "three"],
)
def test_klein_with_a_picture_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, call: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **call)


@pytest.mark.parametrize(
    "change", [{"strength": 0.8}, {"strength": 1.0, "seed": 3}], ids=lambda change: ",".join(change)
)
def test_klein_inpainting_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    call = {**TEXT, "image": picture(90, 71), "mask_image": picture(50, 40, "L"), **change}
    check_parity(pipeline, folder, stock=diffusers.Flux2KleinInpaintPipeline, **call)


def test_klein_inpainting_with_a_reference_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path
) -> None:
    call = {
        **TEXT,
        "image": picture(90, 71),
        "mask_image": picture(50, 40, "L"),
        "image_reference": picture(75, 140),
        "strength": 0.8,
    }
    check_parity(pipeline, folder, stock=diffusers.Flux2KleinInpaintPipeline, **call)


def test_strength_without_a_mask_is_refused(pipeline: ComposedPipeline) -> None:
    with pytest.raises(InvalidRequest, match="strength"):
        start(pipeline, SamplingParams(strength=0.5), {"image": np.asarray(picture(64, 64))})


def test_klein_with_other_heads_and_solver_equals_diffusers(
    checkpoints: Callable[..., Path],
) -> None:
    folder = checkpoints("flux2-klein-base", heads=3)
    check_parity(load(folder), folder, solver="unipc", view=View.FLOW, **CALL)


def test_a_large_picture_is_shown_with_a_million_pixels() -> None:
    large = np.asarray(picture(1500, 1100))
    size = reference_size(large, 16)
    assert size == (864, 1184)
    assert crop_reference(large, 16).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(63, 80), (600, 70)])
def test_a_picture_that_is_too_small_or_narrow_is_the_callers_error(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match="image_path"):
        crop_reference(np.asarray(picture(*size)), 16)


def test_pictures_of_one_size_share_a_batch_and_others_do_not(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(**CALL)
    keys = [
        pipeline.batch_key(start(pipeline, params, {"image": np.asarray(picture(*size))}), 0)
        for size in ((64, 96), (64, 96), (96, 64))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_row_does_not_depend_on_its_batch(pipeline: ComposedPipeline) -> None:
    requests = [
        SamplingParams(**{**CALL, **change})
        for change in ({"seed": 1}, {"seed": 2, "guidance_scale": 1.0}, {"prompt": "a dog"})
    ]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_each_row_sees_its_own_pictures_in_their_order(pipeline: ComposedPipeline) -> None:
    first, second = (np.asarray(picture(*size)) for size in ((64, 96), (80, 64)))
    pictures = [named_images(each) for each in ((first, second), (255 - first, 255 - second))]
    requests = [SamplingParams(**CALL), SamplingParams(**{**CALL, "prompt": "a dog", "seed": 2})]
    alone = run(pipeline, requests[1], pictures[1])
    joined = run_joined(pipeline, requests, [0, 1], pictures)
    assert np.abs(alone.pixels.astype(int) - joined[1].pixels.astype(int)).max() <= 1
    swapped = run(pipeline, requests[1], named_images([255 - second, 255 - first]))
    assert np.abs(alone.pixels.astype(int) - swapped.pixels.astype(int)).max() > 1
