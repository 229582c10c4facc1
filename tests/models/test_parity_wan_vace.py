"""Wan VACE gives what diffusers' WanVACEPipeline gives, of texts, videos, masks and pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from engineless import Pictures, load, run, run_joined, start
from parity import check_parity, pixels_apart
from tiny_checkpoints import build, reference
from tiny_checkpoints.pictures import clip, picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.models.dits.wan.config import WanVaceConfig
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

CALL: dict[str, Any] = {
    "prompt": "a horse walking in the sea",
    "negative_prompt": "blurry",
    "height": 48,
    "width": 80,
    "num_frames": 5,
    "num_inference_steps": 2,
    "guidance_scale": 4.0,
    "max_sequence_length": 32,
}
VIDEO = clip(5, 80, 48)
MASK = [picture(50, 40, "L")] * 5


@pytest.fixture(scope="module", params=["wan-vace", "wan22-vace"])
def folder(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> Path:
    return checkpoints(request.param)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 1.0, "seed": 3},
        {"video": VIDEO, "conditioning_scale": 0.4},
        {"video": clip(5, 160, 96), "mask": MASK, "reference_images": [picture(70, 33)]},
        {"reference_images": [picture(30, 90), picture(9, 8)], "height": 64},
        {"reference_images": [picture(64, 40)], "num_frames": 1},
    ],
    ids=lambda change: ",".join(change),
)
def test_vace_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_a_video_that_is_shorter_goes_on(pipeline: ComposedPipeline, folder: Path) -> None:
    """As diffusers does with grey frames inside the mask."""
    grey, white = (PIL.Image.new("RGB", (80, 48), (each,) * 3) for each in (128, 255))
    black = PIL.Image.new("RGB", (80, 48))
    call = {**CALL, "num_frames": 9}
    theirs = reference(
        folder, **call, video=[*VIDEO, *[grey] * 4], mask=[*[black] * 5, *[white] * 4]
    )
    frames = np.stack([np.asarray(frame) for frame in VIDEO])
    given = {"video": frames, "mask": np.zeros((48, 80), np.uint8)}
    ours = run(pipeline, SamplingParams(**call), given)
    assert pixels_apart(ours, theirs) <= 2  # 128 is not quite grey


def test_texts_videos_and_scales_share_a_batch(pipeline: ComposedPipeline) -> None:
    frames = np.stack([np.asarray(frame) for frame in VIDEO])
    pictures: list[Pictures] = [{}, {"video": frames}, {"video": frames}]
    requests = [
        SamplingParams(**{**CALL, **change})
        for change in ({"seed": 1}, {"conditioning_scale": 0.5}, {"prompt": "a dog"})
    ]
    alone = [run(pipeline, *each) for each in zip(requests, pictures, strict=True)]
    joined = run_joined(pipeline, requests, [0, 0, 0], pictures)
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_a_reference_is_not_a_frame_of_the_video_but_counts_as_tokens(
    pipeline: ComposedPipeline,
) -> None:
    params = SamplingParams(**CALL)
    plain, shown = (
        start(pipeline, params, given) for given in ({}, {"image": np.asarray(picture(40, 40))})
    )
    more = pipeline.tokens(shown) - pipeline.tokens(plain)
    assert more == pipeline.latent_tokens(plain) // 2
    assert pipeline.batch_key(plain, 0) != pipeline.batch_key(shown, 0)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"mask": np.zeros((4, 4), np.uint8)}, "mask_path"),
        ({"last_image": np.zeros((4, 4, 3), np.uint8)}, "last_image_path"),
    ],
)
def test_inputs_that_do_not_fit_are_the_callers_error(
    pipeline: ComposedPipeline, given: Pictures, field: str
) -> None:
    with pytest.raises(InvalidRequest, match=field):
        start(pipeline, SamplingParams(**CALL), given)


def test_a_transformer_for_another_vae_is_told_from_its_config(tmp_path: Path) -> None:
    folder = build("wan-vace", tmp_path, transformer={"vace_in_channels": 90})
    with pytest.raises(InvalidCheckpoint, match="vace_in_channels=90 must be 96"):
        load(folder)


@pytest.mark.parametrize("layers", [(1,), (0, 3), (0, 0), (0, True), 0])
def test_layers_that_can_not_be_steered_are_refused(layers: Any) -> None:
    with pytest.raises(InvalidCheckpoint, match="vace_layers"):
        WanVaceConfig(num_layers=3, vace_layers=layers)
