"""Image-to-image and inpainting with Stable Diffusion give what diffusers' pipelines give."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
from engineless import finish, left, load, run, start
from parity import check_parity

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View, solvers_of
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a photo of a blue rocket",
    "num_inference_steps": 5,
    "guidance_scale": 5.0,
    "strength": 0.6,
}
SIZE = {"height": 64, "width": 96}
STOCK = {
    "sd15": ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    "sdxl": ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
}


def picture(height: int, width: int, mode: str = "RGB") -> PIL.Image.Image:
    rows, columns = np.mgrid[:height, :width]
    channels = [np.sin(rows / 9) + np.cos(columns / k) for k in (5, 11, 17)]
    pixels = ((np.stack(channels, -1) + 2) * 63).astype(np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def mask(height: int, width: int) -> PIL.Image.Image:
    """Half of it white, with an edge that is neither on the latents' grid nor sharp."""
    ramp = np.linspace(-200, 455, width).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(np.tile(ramp, (height, 1)))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module", params=["sd15-inpainting", "sdxl-inpainting"])
def inpainting_folder(request: pytest.FixtureRequest, checkpoints: Callable[..., Path]) -> Path:
    return checkpoints(request.param)


@pytest.fixture(scope="module")
def inpainting_pipeline(inpainting_folder: Path) -> ComposedPipeline:
    return load(inpainting_folder)


@cache
def _loaded(folder: Path) -> ComposedPipeline:
    return load(folder)


def stock(folder: Path, task: int) -> Any:
    return getattr(diffusers, STOCK[folder.name][task])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3, "strength": 1.0},
        {"negative_prompt": "blurry", "strength": 0.3},
        {"guidance_scale": 1.0, "image": picture(70, 45)},
    ],
    ids=lambda change: ",".join(change),
)
def test_image_to_image_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    call = {**CALL, "image": picture(64, 96), **change}
    check_parity(pipeline, folder, stock=stock(folder, 0), **call)


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 1.0, "seed": 3},
        {"guidance_scale": 1.0, "image": picture(130, 50), "mask_image": mask(61, 83)},
    ],
    ids=lambda change: ",".join(change),
)
def test_inpainting_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    call = {**CALL, **SIZE, "image": picture(64, 96), "mask_image": mask(64, 96), **change}
    check_parity(pipeline, folder, stock=stock(folder, 1), **call)


@pytest.mark.parametrize("solver", solvers_of(View.NOISE))
@pytest.mark.parametrize(("name", "task"), [("sd15", 0), ("sdxl", 1)], ids=["picture", "mask"])
def test_a_picture_with_each_solver_equals_diffusers(
    checkpoints: Callable[..., Path], name: str, task: int, solver: str
) -> None:
    folder = checkpoints(name)
    call = {**CALL, "image": picture(64, 96)}
    if task:
        call |= {**SIZE, "mask_image": mask(64, 96)}
    check_parity(_loaded(folder), folder, solver=solver, stock=stock(folder, task), **call)


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("solver", ["pndm", "euler_a"])
def test_a_unet_that_sees_the_mask_equals_diffusers(
    inpainting_pipeline: ComposedPipeline, inpainting_folder: Path, solver: str, strength: float
) -> None:
    call = {**CALL, **SIZE, "image": picture(100, 80), "mask_image": mask(64, 96)}
    call["strength"] = strength
    check_parity(inpainting_pipeline, inpainting_folder, solver=solver, **call)


def test_a_unet_that_sees_the_mask_needs_picture_and_mask(
    inpainting_pipeline: ComposedPipeline,
) -> None:
    info = inpainting_pipeline.model_info("test")
    assert info.tasks == ("inpainting",)
    with pytest.raises(InvalidRequest, match="image_path"):
        run(inpainting_pipeline, SamplingParams(prompt="a dog", **SIZE))
    with pytest.raises(InvalidRequest, match="mask_path"):
        run(inpainting_pipeline, SamplingParams(**CALL), {"image": np.asarray(picture(64, 96))})


def test_all_three_tasks_share_a_batch(pipeline: ComposedPipeline) -> None:
    image = {"image": np.asarray(picture(64, 96))}
    pictures = [{}, image, {**image, "mask": np.asarray(mask(64, 96))}]
    requests = [
        SamplingParams(**{**CALL, **SIZE, "strength": 0.6 if each else None}) for each in pictures
    ]
    alone = [run(pipeline, *each) for each in zip(requests, pictures, strict=True)]
    states = [start(pipeline, *each) for each in zip(requests, pictures, strict=True)]
    assert len({pipeline.batch_key(state, state.evaluation) for state in states}) == 1
    pipeline.forward(Phase.DENOISE, states, min(left(state) for state in states))
    for state, expected in zip(states, alone, strict=True):
        if left(state):
            pipeline.forward(Phase.DENOISE, [state], left(state))
        output = finish(pipeline, state)
        apart = np.abs(output.pixels.astype(int) - expected.pixels)
        assert apart.max() <= 1
