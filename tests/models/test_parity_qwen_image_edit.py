"""Qwen-Image-Edit gives what diffusers' pipelines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from engineless import load, start
from parity import check_parity
from support import CASES
from tiny_checkpoints.case import patched
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.families.qwen_image_edit import QWEN_IMAGE_EDIT
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import named_images, output_size
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families.qwen_image_edit import PICTURE_AREA

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 64,
    "width": 128,
    "num_inference_steps": 2,
    "image": picture(120, 40),
    "seed": 7,
    "true_cfg_scale": 4.0,
    "negative_prompt": " ",
}


@pytest.fixture(scope="module", params=["qwenimage-edit", "qwenimage-edit-plus"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "images",
    [
        [picture(120, 40), picture(70, 90, "L")],
        [picture(200, 64, "P"), picture(90, 71), picture(40, 120, "CMYK")],
    ],
    ids=["two", "three"],
)
def test_plus_with_several_pictures_equals_diffusers(
    checkpoints: Callable[..., Path], images: list[Any]
) -> None:
    folder = checkpoints("qwenimage-edit-plus")
    with patched(CASES["qwen_image_edit", "image-edit"].patches):
        shown = [image.convert("RGB") for image in images]  # diffusers takes no other mode
        check_parity(load(folder), folder, **{**CALL, "image": shown})


def test_the_last_picture_gives_the_size() -> None:
    model = ModelInfo(
        name="",
        family="",
        tasks=QWEN_IMAGE_EDIT.tasks,
        defaults=QWEN_IMAGE_EDIT.defaults,
        limits=QWEN_IMAGE_EDIT.limits,
        size_multiple=16,
        picture_size=QWEN_IMAGE_EDIT.picture_size,
    )
    shapes = named_images([(300, 900, 3), (900, 300, 3), (400, 800, 3)])
    pictures = {name: FrameHeader(shape) for name, shape in shapes.items()}
    width, height = calculate_dimensions(PICTURE_AREA, 800 / 400)
    assert output_size(SamplingParams(), model, pictures) == (width, height)


def test_only_plus_takes_several_pictures(checkpoints: Callable[..., Path]) -> None:
    pictures = named_images([np.asarray(picture(60, 60))] * 2)
    params = SamplingParams(prompt="a dog")
    with pytest.raises(InvalidRequest, match="image_path='2 images': at most 1 for this model"):
        start(load(checkpoints("qwenimage-edit")), params, pictures)


def test_qwen_image_edit_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    check_parity(pipeline, folder, **CALL)
