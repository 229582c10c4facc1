"""Wan text-to-video gives what diffusers' WanPipeline gives, decoded chunk by chunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import check_parity

from multimodal_gen.runtime.models.schedulers.registry import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a horse walking in the sea",
    "height": 32,
    "width": 48,
    "num_frames": 9,
    "num_inference_steps": 4,
    "guidance_scale": 5.0,
    "max_sequence_length": 32,
}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("wan")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"negative_prompt": "blurry"},
        {"guidance_scale": 1.0},
        {"height": 48, "width": 80, "num_frames": 5},
        {"num_frames": 1},
        {"prompt": "  a &amp;lt;cat&amp;gt;\n\tin   the “sea” ", "num_frames": 1},
    ],
    ids=lambda change: ",".join(change),
)
def test_wan_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


@pytest.mark.parametrize("solver", ["flow_euler", "flow_heun"])
def test_wan_with_each_solver_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, solver: str
) -> None:
    check_parity(pipeline, folder, solver=solver, view=View.FLOW, **CALL)
