"""Distilled checkpoints of Stable Diffusion get the steps and guidance that they were made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engineless import load
from tiny_checkpoints.schedulers import SD15, SDXL

from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.pipelines.few_steps import few_step_solver, few_steps

USUAL = Defaults(width=512, height=512, num_inference_steps=50, guidance_scale=7.5)
TURBO = {**SDXL, "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("scheduler", "side", "expected"),
    [
        (TURBO, 64, (1, 0.0)),
        ({**TURBO, "_class_name": "EulerAncestralDiscreteScheduler"}, 64, (1, 0.0)),
        ({**SD15, "_class_name": "LCMScheduler"}, 64, (4, 1.0)),
        (TURBO, 128, (50, 7.5)),
        ({**TURBO, "prediction_type": "v_prediction"}, 64, (50, 7.5)),
        (SDXL, 64, (50, 7.5)),
    ],
    ids=["sd-turbo", "sdxl-turbo", "lcm", "large", "velocity", "leading"],
)
def test_the_configs_tell_a_distilled_checkpoint(
    scheduler: dict[str, Any], side: int, expected: tuple[int, float]
) -> None:
    found = few_steps(USUAL, scheduler, {"sample_size": side})
    assert (found.num_inference_steps, found.guidance_scale) == expected


@pytest.mark.parametrize(
    ("file", "steps"),
    [("sdxl_lightning_4step.safetensors", 4), ("SDXL-Lightning-8steps_unet.safetensors", 8)],
)
def test_a_file_of_sdxl_lightning_is_known_by_its_name(file: str, steps: int) -> None:
    found = few_steps(USUAL, SDXL, {"sample_size": 128}, file)
    assert (found.num_inference_steps, found.guidance_scale) == (steps, 1.0)
    assert few_step_solver(SDXL, file) == {**SDXL, "timestep_spacing": "trailing"}
    assert few_step_solver(SDXL, "sd_xl_base_1.0.safetensors") == SDXL


def test_sdxl_lightning_of_one_step_predicts_the_picture() -> None:
    config = few_step_solver(SDXL, "sdxl_lightning_1step_unet_x0.safetensors")
    assert config["prediction_type"] == "sample"


def test_a_checkpoint_with_the_scheduler_of_consistency_models_takes_four_steps(
    checkpoints: Callable[..., Path],
) -> None:
    folder = checkpoints("sd15", scheduler={**SD15, "_class_name": "LCMScheduler"})
    assert load(folder).defaults.num_inference_steps == 4
