"""Wan text-to-video gives what diffusers' WanPipeline gives, decoded chunk by chunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import check_parity

from multimodal_gen.configs.solvers import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a horse walking in the sea",
    "negative_prompt": "",  # unset, it would be the family's own
    "height": 64,
    "width": 96,
    "num_frames": 9,
    "num_inference_steps": 3,
    "guidance_scale": 5.0,
    "max_sequence_length": 32,
}


@pytest.fixture(scope="module", params=["wan", "wan22", "wan22-ti2v"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"negative_prompt": "blurry"},
        {"guidance_scale": 1.0},
        {"height": 32, "width": 160, "num_frames": 5},
        {"num_frames": 1, "max_sequence_length": 512},
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
