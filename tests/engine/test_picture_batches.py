"""Requests with pictures share batches with one another, and with those that have none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.pipelines.flux import pipeline_flux_kontext
from engineless import Pictures, load, run, run_joined, start
from tiny_checkpoints.pictures import picture
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams

Checkpoints = Callable[..., Path]

SIZE: dict[str, Any] = {
    "width": 80,
    "height": 48,
    "num_inference_steps": 4,
    "max_sequence_length": 32,
}
IMAGE = {"image": np.asarray(picture(70, 61))}
MASKED = {**IMAGE, "mask": np.asarray(picture(50, 40, "L"))}


@pytest.mark.parametrize("name", ["flux-dev", "sd35"])
def test_pictures_by_strength_are_the_same_alone_and_in_a_mixed_batch(
    name: str, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    requests = [
        SamplingParams(prompt="a dog", seed=1, **SIZE),
        SamplingParams(prompt="a red heart", seed=2, strength=0.6, guidance_scale=1.0, **SIZE),
        SamplingParams(prompt="a cat", negative_prompt="blurry", seed=3, strength=0.9, **SIZE),
    ]
    pictures: list[Pictures] = [{}, IMAGE, MASKED]
    alone = [run(pipeline, *each) for each in zip(requests, pictures, strict=True)]
    joined = run_joined(pipeline, requests, [0, 1, 1], pictures)
    for one, other in zip(alone, joined, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


@pytest.mark.parametrize("name", ["flux-dev", "sd15"])
def test_unmasked_pixels_are_the_images_own_where_they_are_to_be_kept(
    name: str, checkpoints: Checkpoints
) -> None:
    pipeline = load(checkpoints(name))
    mask = np.zeros((48, 80), np.uint8)
    mask[:, 30:40], mask[:, 40:] = 64, 255
    pictures: Pictures = {"image": np.asarray(picture(80, 48)), "mask": mask}
    size = {key: SIZE[key] for key in ("width", "height", "num_inference_steps")}
    params = SamplingParams(prompt="a dog", seed=1, strength=0.9, **size)
    (free,) = run(pipeline, params, pictures).pixels.astype(float)
    kept_params = replace(params, keep_unmasked=True)
    kept, alike = (
        each.pixels[0] for each in run_joined(pipeline, [kept_params] * 2, [0, 0], [pictures] * 2)
    )
    assert np.abs(free[:, :30] - pictures["image"][:, :30]).mean() > 3
    assert (kept[:, :30] == pictures["image"][:, :30]).all()
    half = (free[:, 30:40] + pictures["image"][:, 30:40]) / 2
    assert np.abs(kept[:, 30:40] - half).max() <= 3
    assert np.abs(kept[:, 40:] - free[:, 40:]).max() <= 1
    assert np.abs(kept.astype(int) - alike).max() <= 1


def test_keeping_what_no_mask_protects_is_said_to_have_no_effect(
    checkpoints: Checkpoints,
) -> None:
    pipeline = load(checkpoints("flux-dev"))
    params = SamplingParams(prompt="a dog", strength=0.9, keep_unmasked=True, **SIZE)
    assert texts(start(pipeline, params, IMAGE).warnings) == [
        "keep_unmasked has no effect without a mask"
    ]
    masked = {**IMAGE, "mask": np.full(IMAGE["image"].shape[:2], 255, np.uint8)}
    assert texts(start(pipeline, params, masked).warnings) == []


def test_kontext_shows_each_row_its_own_picture(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64)]
    )
    pipeline = load(checkpoints("flux-kontext"))
    params = SamplingParams(prompt="a dog", seed=1, **SIZE)
    pictures: list[Pictures] = [IMAGE, {"image": 255 - IMAGE["image"]}]
    alone = [run(pipeline, params, each) for each in pictures]
    joined = run_joined(pipeline, [params, params], [0, 1], pictures)
    for one, other in zip(alone, joined, strict=True):
        assert (one.latents - other.latents).abs().max() < 1e-4
    assert (alone[0].latents - alone[1].latents).abs().max() > 1e-2


def test_pictures_of_one_number_of_tokens_and_unlike_shapes_share_no_evaluation(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(64, 96), (96, 64)]
    )
    pipeline = load(checkpoints("flux-kontext"))
    params = SamplingParams(prompt="a dog", **SIZE)
    upright, lying = (np.asarray(picture(*size)) for size in ((40, 60), (60, 40)))
    keys = {pipeline.batch_key(start(pipeline, params, {"image": p}), 0) for p in (upright, lying)}
    assert len(keys) == 2


@pytest.mark.parametrize(("stop", "idle"), [(0.59, False), (0.49, True)])
def test_a_lora_for_a_part_of_the_steps_that_has_none_is_said_to_have_no_effect(
    checkpoints: Checkpoints, stop: float, idle: bool
) -> None:
    """Of four steps, one begins at 0.5."""
    params = SamplingParams(
        prompt="a dog", lora=({"name": "ink", "start": 0.41, "stop": stop},), **SIZE
    )
    told = f"lora='ink' has no effect: no step begins from 0.41 to {stop} of all"
    assert texts(start(load(checkpoints("flux-dev")), params).warnings) == [told] * idle
