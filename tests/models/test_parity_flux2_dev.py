"""FLUX.2 dev gives what diffusers' Flux2Pipeline gives, without and with reference pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run_each, run_joined
from parity import check_parity
from tiny_checkpoints import build
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

TEXT: dict[str, Any] = {"prompt": "a red heart on the sea", "num_inference_steps": 2}
CALL = {**TEXT, "height": 48, "width": 80, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("flux2-dev")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7, "guidance_scale": 1.0},
        {"height": 112, "width": 64, "num_inference_steps": 1},
        {"prompt": "", "max_sequence_length": 128},
        {"prompt": "[IMG]a cat & “dog” </s> [INST]" * 30, "max_sequence_length": 96},
    ],
    ids=lambda change: ",".join(change),
)
def test_dev_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_dev_with_a_picture_takes_its_size_as_diffusers_does(
    pipeline: ComposedPipeline, folder: Path
) -> None:
    check_parity(pipeline, folder, **TEXT, guidance_scale=2.5, image=picture(90, 71))


def test_dev_with_several_pictures_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path
) -> None:
    pictures = [picture(90, 71), picture(64, 130, "L"), picture(66, 80)]
    check_parity(pipeline, folder, **CALL, image=pictures)


def test_a_row_does_not_depend_on_its_batch(pipeline: ComposedPipeline) -> None:
    requests = [
        SamplingParams(**{**CALL, **change})
        for change in ({"seed": 1}, {"seed": 2, "guidance_scale": 1.0}, {"prompt": "a dog"})
    ]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_a_text_encoder_of_another_width_is_told_from_the_configs(tmp_path: Path) -> None:
    folder = build("flux2-dev", tmp_path, transformer={"joint_attention_dim": 50})
    with pytest.raises(InvalidCheckpoint, match="joint_attention_dim=50 does not match"):
        load(folder)
