"""Qwen-Image-Edit gives what diffusers' pipelines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

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


def test_qwen_image_edit_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    check_parity(pipeline, folder, **CALL)
