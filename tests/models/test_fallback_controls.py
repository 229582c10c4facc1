"""Pipelines of diffusers that have a ControlNet or an adapter take its picture from `control`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run
from library_tries import TRIALS
from library_tries.trial import Trial, save
from parity import PIXELS

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

NAME = "StableDiffusionControlNetImg2ImgPipeline"
CONTROL = {"name": "controlnet", "scale": 0.6, "start": 0.0, "stop": 0.5}
STOCK = {
    "controlnet_conditioning_scale": 0.6,
    "control_guidance_start": 0.0,
    "control_guidance_end": 0.5,
}
CASES: Mapping[str, tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = {
    NAME: ({"image": "image", "control_image": "control_1"}, CONTROL, STOCK),
    "FluxControlPipeline": ({"control_image": "control_1"}, {"name": "control"}, {}),
}


def controlled(name: str) -> Trial:
    pictures, control, stock = CASES[name]
    call = {**TRIALS[name].call, "control": [control]}
    return replace(TRIALS[name], pictures=pictures, call=call, stock_call=stock)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> ComposedPipeline:
    folder = tmp_path_factory.mktemp("checkpoint")
    return load(save(TRIALS[NAME].pipeline(NAME), folder / "tiny"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")  # of the library, about its own pipelines
def test_the_picture_of_a_control_steers_as_in_diffusers(name: str, tmp_path: Path) -> None:
    trial = controlled(name)
    stock = trial.pipeline(name)
    pipeline = load(save(stock, tmp_path / "tiny"))
    ours = run(pipeline, trial.request, trial.inputs).pixels
    assert int(np.abs(ours.astype(int) - trial.stock(stock).astype(int)).max()) <= PIXELS


def test_a_model_with_a_control_of_its_own_takes_no_other(pipeline: ComposedPipeline) -> None:
    info = pipeline.model_info("tiny")
    assert info.controls == ("controlnet",)
    assert "control" in info.parameters
    trial = controlled(NAME)
    request = trial.request.updated(control=({"name": "canny"},))
    with pytest.raises(InvalidRequest, match=r"canny.*must be controlnet: this model has its own"):
        run(pipeline, request, trial.inputs)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("control_1",), "image_path.*must be image"),
        (("image", "image_2", "control_1"), "either a picture of controlnet, or one in image_path"),
    ],
)
def test_each_picture_is_given_once(
    pipeline: ComposedPipeline, names: tuple[str, ...], reason: str
) -> None:
    pixels = controlled(NAME).inputs["image"]
    params = SamplingParams(prompt="a fox", width=64, height=64, control=(CONTROL,))
    with pytest.raises(InvalidRequest, match=reason):
        run(pipeline, params, dict.fromkeys(names, pixels))
