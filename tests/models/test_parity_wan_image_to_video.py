"""Wan image-to-video gives what diffusers' WanImageToVideoPipeline gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from diffusers import WanImageToVideoPipeline
from engineless import load, run, start
from parity import LATENTS, PIXELS, check_parity, pixels_apart
from tiny_checkpoints import build, reference
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import View
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
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


@pytest.mark.parametrize("name", ["wan-flf", "wan22-i2v"])
@pytest.mark.parametrize(
    "change", [{}, {"seed": 5, "guidance_scale": 1.0, "num_frames": 5, "width": 32}], ids=str
)
def test_a_first_and_a_last_frame_equal_diffusers(
    checkpoints: Checkpoints, name: str, change: dict[str, Any]
) -> None:
    folder = checkpoints(name)
    first, last = PIL.Image.fromarray(PICTURE), picture(30, 80)
    check_parity(load(folder), folder, image=first, last_image=last, **{**CALL, **change})


@pytest.mark.parametrize(
    ("name", "last", "field"),
    [
        ("wan-flf", False, "last_image_path"),
        ("wan-i2v", True, "last_image_path"),
        ("wan22-ti2v", True, "last_image_path"),
        ("wan22-i2v", True, "num_frames"),
    ],
)
def test_frames_that_do_not_fit_the_model_are_the_callers_error(
    checkpoints: Checkpoints, name: str, last: bool, field: str
) -> None:
    given = {"image": PICTURE, "last_image": PICTURE} if last else {"image": PICTURE}
    with pytest.raises(InvalidRequest, match=field):
        start(load(checkpoints(name)), SamplingParams(**{**CALL, "num_frames": 1}), given)


def test_positions_of_another_number_of_tokens_are_refused(tmp_path: Path) -> None:
    folder = build("wan-flf", tmp_path, transformer={"pos_embed_seq_len": 12})
    with pytest.raises(InvalidCheckpoint, match=r"pos_embed_seq_len=12 must be 10"):
        load(folder)


def test_wan_with_another_solver_equals_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    first = PIL.Image.fromarray(PICTURE)
    check_parity(pipeline, folder, solver="flow_euler", view=View.FLOW, image=first, **CALL)


@pytest.mark.parametrize("change", [{"seed": 5}, {"guidance_scale": 1.0, "num_frames": 5}])
def test_the_model_for_texts_and_pictures_equals_diffusers(
    checkpoints: Checkpoints, change: dict[str, Any]
) -> None:
    folder, call = checkpoints("wan22-ti2v"), {**CALL, **change}
    first = PIL.Image.fromarray(PICTURE)
    theirs = reference(folder, kind=WanImageToVideoPipeline, image=first, **call)
    ours = run(load(folder), SamplingParams(**call), {"image": PICTURE})
    # The reference puts the given frame in place after the last step, where these were taken.
    rest = theirs.latents[:, :, 1:]
    assert (ours.latents[:, :, 1:] - rest).abs().max() <= LATENTS * rest.abs().max()
    assert pixels_apart(ours, theirs) <= PIXELS
