"""FLUX gives what diffusers' FluxPipeline gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import check_parity

from multimodal_gen.runtime.models.schedulers.registry import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
    "max_sequence_length": 32,
}


@pytest.fixture(scope="module", params=["flux-dev", "flux-schnell"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 3.5},
        {"guidance_scale": 1.5, "seed": 7},
        {"true_cfg_scale": 3.0, "negative_prompt": "blurry"},
        {"true_cfg_scale": 3.0, "negative_prompt": ""},
        {"true_cfg_scale": 3.0},
        {"true_cfg_scale": 1.0, "negative_prompt": "blurry"},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 512},
        {"prompt": "a <b>cat</b> & “dog” " * 40},
    ],
    ids=lambda change: ",".join(change),
)
def test_flux_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_flux_with_unipc_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    call = {**CALL, "num_inference_steps": 6}
    check_parity(pipeline, folder, solver="unipc", view=View.FLOW, **call)
