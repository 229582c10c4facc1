"""Stable Diffusion 1.5 and XL give what diffusers' pipelines give, with every solver."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engineless import load
from parity import check_parity
from tiny_checkpoints.schedulers import SD15

from multimodal_gen.configs.solvers import View, solvers_of
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a photo of a blue rocket",
    "height": 64,
    "width": 96,
    "num_inference_steps": 5,
    "guidance_scale": 5.0,
}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"negative_prompt": ""},
        {"negative_prompt": "blurry, low quality"},
        {"guidance_scale": 1.0},
        {"height": 120, "width": 72},
        {"prompt": "a cat " * 100},
    ],
    ids=lambda change: ",".join(change),
)
def test_stable_diffusion_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


@pytest.mark.parametrize("solver", solvers_of(View.NOISE))
def test_stable_diffusion_with_each_solver_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, solver: str
) -> None:
    check_parity(pipeline, folder, solver=solver, **CALL)


@pytest.mark.parametrize(
    ("own", "solver"),
    [
        ({"_class_name": "PNDMScheduler", "clip_sample": True, "steps_offset": 1}, "ddim"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_min": None}, "unipc"),
    ],
    ids=["clip_sample of another class", "null"],
)
@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_another_solver_is_made_from_a_config_with_odd_values(
    own: dict[str, Any], solver: str, checkpoints: Callable[..., Path]
) -> None:
    folder = checkpoints("sd15", scheduler={**SD15, **own})
    check_parity(load(folder), folder, solver=solver, **CALL)
