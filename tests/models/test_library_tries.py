"""Pipelines of diffusers give their own pictures as a fallback: tiny ones of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from library_tries import RECORD, TRIALS
from library_tries.compared import difference
from parity import PIXELS

from multimodal_gen.configs.families import family_named

USUAL = (
    "AnimateDiffControlNetPipeline",
    "CogView4ControlPipeline",
    "FluxControlInpaintPipeline",
    "HunyuanImagePipeline",
    "HunyuanVideo15Pipeline",
    "LatentConsistencyModelPipeline",
    "QwenImageControlNetPipeline",
    "SkyReelsV2ImageToVideoPipeline",
    "StableDiffusion3ControlNetInpaintingPipeline",
    "StableDiffusionXLPAGPipeline",
    "StableVideoDiffusionPipeline",
    "WanVideoToVideoPipeline",
)
"""One of each kind; the others are seen now and then."""
AS_FALLBACK = [name for name in TRIALS if family_named(name).name == "fallback"]


@pytest.mark.parametrize(
    "name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in AS_FALLBACK]
)
@pytest.mark.filterwarnings("ignore")  # of the library, about its own pipelines
def test_a_pipeline_makes_diffusers_picture(name: str, tmp_path: Path) -> None:
    assert difference(name, tmp_path / "checkpoint") <= PIXELS


def test_the_record_has_every_trial_and_each_is_equal() -> None:
    record = json.loads(RECORD.read_text())
    assert record.keys() == TRIALS.keys()
    assert len(record) >= 60
    assert max(record.values()) <= PIXELS
