"""Stable Diffusion 3 gives what diffusers' pipelines give."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from engineless import load, start
from parity import check_parity
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 4,
    "guidance_scale": 5.0,
    "max_sequence_length": 32,
}


@pytest.fixture(scope="module", params=["sd3", "sd35"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"guidance_scale": 1.0},
        {"negative_prompt": "blurry"},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 256},
        {"prompt": "a <b>cat</b> & “dog” " * 40},
    ],
    ids=lambda change: ",".join(change),
)
def test_stable_diffusion_3_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_stable_diffusion_3_without_t5_equals_diffusers(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("sd3-without-t5")
    check_parity(load(folder), folder, **CALL, negative_prompt="blurry")


@pytest.mark.parametrize("solver", ["flow_heun", "unipc"])
def test_stable_diffusion_3_with_other_solvers_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, solver: str
) -> None:
    check_parity(pipeline, folder, solver=solver, view=View.FLOW, **CALL)


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.6},
        {"strength": 1.0, "seed": 3},
        {"height": 64, "width": 64, "strength": 0.3, "guidance_scale": 1.0},
    ],
    ids=lambda change: ",".join(change),
)
@pytest.mark.parametrize("mask", [False, True], ids=["image-to-image", "inpainting"])
def test_stable_diffusion_3_from_a_picture_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any], mask: bool
) -> None:
    call = {**CALL, **change, "image": picture(70, 61)}
    stock = diffusers.StableDiffusion3Img2ImgPipeline
    if mask:
        call["mask_image"] = picture(50, 40, "L")
        stock = diffusers.StableDiffusion3InpaintPipeline
    check_parity(pipeline, folder, stock=stock, **call)


@pytest.mark.parametrize(
    ("name", "steps", "guidance"), [("sd3", 28, 7.0), ("sd35", 40, 4.5)], ids=["3", "3.5 medium"]
)
def test_defaults_are_those_of_the_published_model_at_the_trained_size(
    checkpoints: Callable[..., Path], name: str, steps: int, guidance: float
) -> None:
    defaults = load(checkpoints(name)).model_info(name).defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, guidance)
    assert (defaults.width, defaults.height) == (64, 64)


def test_a_side_longer_than_the_transformer_has_places_for_is_refused(
    pipeline: ComposedPipeline,
) -> None:
    with pytest.raises(InvalidRequest, match="width"):
        start(pipeline, SamplingParams(prompt="a cat", width=208, height=64))


def test_t5_without_its_tokenizer_is_refused(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints("sd3"), tmp_path / "sd3")
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer_3"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidCheckpoint, match="tokenizer_3"):
        load(folder)
