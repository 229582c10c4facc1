"""Krea 2 gives what diffusers' pipeline gives, and rows don't see each other's padding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run_each, run_joined
from parity import check_parity

from multimodal_gen.configs.families.krea2 import DISTILLED_DEFAULTS, KREA2
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

CALL: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "height": 48,
    "width": 80,
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("krea2")


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 0.0},
        {"negative_prompt": "blurry, low quality", "height": 112, "width": 64, "seed": 7},
        {"prompt": "", "max_sequence_length": 3},
        {"prompt": "a cat " * 60, "max_sequence_length": 40},
        {"prompt": "a {small} <|im_end|>cat & “dog”\n"},
    ],
    ids=lambda change: ",".join(change),
)
def test_krea2_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, change: dict[str, Any]
) -> None:
    check_parity(pipeline, folder, **{**CALL, **change})


def test_a_text_is_refined_once(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, refined = pipeline.components["transformer"], []
    of_all = transformer.refined
    monkeypatch.setattr(
        transformer, "refined", lambda *given: refined.append(len(given[0])) or of_all(*given)
    )
    run_each(pipeline, [SamplingParams(**CALL, seed=3)])
    assert refined == [2]  # both branches


def test_the_distilled_model_has_a_schedule_of_its_own(checkpoints: Callable[..., Path]) -> None:
    folder = checkpoints("krea2-turbo")
    pipeline = load(folder)
    check_parity(pipeline, folder, **{**CALL, "guidance_scale": 0.0})
    assert pipeline.defaults == DISTILLED_DEFAULTS != KREA2.defaults


def test_rows_with_texts_of_unlike_lengths_do_not_see_each_others_padding(
    pipeline: ComposedPipeline,
) -> None:
    long = "a photo of a cat riding a horse " * 20
    changes: list[dict[str, Any]] = [
        {"prompt": "a dog", "negative_prompt": long},
        {"prompt": long, "guidance_scale": 0.0, "seed": 2},
        {"prompt": long, "seed": 3, "num_inference_steps": 2},
    ]
    requests = [SamplingParams(**{**CALL, **change}) for change in changes]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=[0, 1, 1])
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
        assert (one.latents - other.latents).abs().max() < 1e-4
