"""Qwen-Image gives what diffusers' pipelines give, from text and from pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
from engineless import load
from parity import check_parity
from tiny_checkpoints.schedulers import FLUX_DEV

from multimodal_gen.runtime.models.schedulers.registry import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
}
GUIDED = {"true_cfg_scale": 4.0, "negative_prompt": " "}


def picture(width: int, height: int) -> PIL.Image.Image:
    """Smooth, of many colours."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rgb = np.stack((x, y, np.sin(7 * x * y) ** 2), axis=-1)
    return PIL.Image.fromarray((255 * rgb).astype(np.uint8))


def mask(width: int, height: int) -> PIL.Image.Image:
    white = np.zeros((height, width), np.uint8)
    white[height // 4 :, : width // 2] = 255
    return PIL.Image.fromarray(white)


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
    pictures = {"image": picture(100, 60), "mask_image": mask(50, 40)}
    check_parity(
        pipeline, folder, stock=diffusers.QwenImageInpaintPipeline, **{**CALL, **pictures, **change}
    )
