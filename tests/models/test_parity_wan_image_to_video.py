"""Wan image-to-video gives what diffusers' WanImageToVideoPipeline gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from diffusers import WanImageToVideoPipeline
from engineless import load, run
from parity import LATENTS, PIXELS, check_parity, pixels_apart
from tiny_checkpoints import reference

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

PICTURE = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
CALL: dict[str, Any] = {
    "prompt": "a horse walking in the sea",
    "negative_prompt": "",
    "height": 64,
    "width": 96,
    "num_frames": 9,
    "num_inference_steps": 3,
    "guidance_scale": 5.0,
    "max_sequence_length": 32,
}


@pytest.fixture(scope="module", params=["wan-i2v", "wan22-i2v"])
def folder(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5, "negative_prompt": "blurry"},
        {"guidance_scale": 1.0},
        {"height": 32, "width": 80, "num_frames": 5},
        {"num_frames": 1},
        {"max_sequence_length": 512},
    ],
    ids=lambda change: ",".join(change),
)
def test_wan_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, image=PIL.Image.fromarray(PICTURE), **{**CALL, **change})


def test_wan_with_another_solver_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    picture = PIL.Image.fromarray(PICTURE)
    check_parity(pipeline, folder, solver="flow_euler", view=View.FLOW, image=picture, **CALL)


@pytest.mark.parametrize("change", [{"seed": 5}, {"guidance_scale": 1.0, "num_frames": 5}])
def test_the_model_for_texts_and_pictures_equals_diffusers(
    checkpoints: Checkpoints, change: dict[str, Any]
) -> None:
    folder, call = checkpoints("wan22-ti2v"), {**CALL, **change}
    picture = PIL.Image.fromarray(PICTURE)
    theirs = reference(folder, kind=WanImageToVideoPipeline, image=picture, **call)
    ours = run(load(folder), SamplingParams(**call), {"image": PICTURE})
    # The reference puts the given frame in place after the last step, where these were taken.
    rest = theirs.latents[:, :, 1:]
    assert (ours.latents[:, :, 1:] - rest).abs().max() <= LATENTS * rest.abs().max()
    assert pixels_apart(ours, theirs) <= PIXELS
