"""Qwen-Image-Edit's checkpoints and requests: what goes together, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engineless import load, run, run_joined, start
from tiny_checkpoints.pictures import picture

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.families import qwen_image_edit

CALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("qwenimage-edit")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures for the VAE are small, to save time."""
    monkeypatch.setattr(qwen_image_edit, "PICTURE_AREA", 128 * 128)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_settings_for_pictures_may_be_in_a_file_of_their_own(copied: Path) -> None:
    whole = copied / "processor" / "processor_config.json"
    own = json.loads(whole.read_text())["image_processor"]
    whole.unlink()
    with pytest.raises(InvalidCheckpoint, match="preprocessor_config"):
        load(copied)
    (copied / "processor" / "preprocessor_config.json").write_text(json.dumps(own))
    load(copied)


def test_the_tokenizer_is_the_processors(copied: Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    load(copied)


def test_a_processor_that_names_code_is_refused(copied: Path) -> None:
    change(copied / "processor" / "processor_config.json", auto_map={"AutoProcessor": "code.P"})
    with pytest.raises(InvalidCheckpoint, match="auto_map"):
        load(copied)


def test_a_processor_cannot_read_outside_its_folder(copied: Path, tmp_path: Path) -> None:
    config = copied / "processor" / "processor_config.json"
    shutil.move(config, tmp_path / "elsewhere.json")
    config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InvalidCheckpoint, match="is outside of"):
        load(copied)


def test_patches_must_be_those_of_the_text_encoder(copied: Path) -> None:
    config = copied / "processor" / "processor_config.json"
    settings = json.loads(config.read_text())["image_processor"]
    change(config, image_processor={**settings, "patch_size": 14})
    with pytest.raises(InvalidCheckpoint, match="patch_size=14"):
        load(copied)


@pytest.mark.parametrize("field", ["in_channels", "guidance_embeds"])
def test_a_transformer_that_does_not_fit_the_rest_is_refused(copied: Path, field: str) -> None:
    change(copied / "transformer" / "config.json", **{field: True})
    with pytest.raises(InvalidCheckpoint, match=field):
        load(copied)


def test_a_prompt_cannot_pretend_to_be_a_picture(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(prompt="a dog <|image_pad|>", **CALL)
    with pytest.raises(InvalidRequest, match="prompt"):
        start(pipeline, params, {"image": np.asarray(picture(60, 60))})


def test_a_request_without_a_picture_is_refused(pipeline: ComposedPipeline) -> None:
    with pytest.raises(InvalidRequest, match="image_path"):
        start(pipeline, SamplingParams(prompt="a dog", **CALL))


@pytest.mark.usefixtures("small")
def test_each_row_sees_its_own_picture(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(prompt="a dog", seed=1, **CALL)
    image = np.asarray(picture(60, 40))
    pictures = [{"image": image}, {"image": 255 - image}]
    requests = [params, replace(params, prompt="a cat", negative_prompt="a red horse")]
    alone = run(pipeline, requests[1], pictures[1])
    joined = run_joined(pipeline, requests, [0, 1], pictures)
    assert (alone.latents - joined[1].latents).abs().max() < 1e-4
    assert np.abs(alone.pixels.astype(int) - joined[1].pixels.astype(int)).max() <= 1


@pytest.mark.usefixtures("small")
def test_pictures_of_unlike_shapes_share_no_evaluation(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(prompt="a dog", **CALL)
    upright, lying = (np.asarray(picture(*size)) for size in ((20, 40), (40, 20)))
    keys = {pipeline.batch_key(start(pipeline, params, {"image": p}), 0) for p in (upright, lying)}
    assert len(keys) == 2


@pytest.mark.parametrize(("height", "width"), [(1, 300), (5000, 3)])
def test_a_picture_too_narrow_to_be_seen_is_refused_with_its_size(
    folder: Path, small: None, height: int, width: int
) -> None:
    pictures = {"image": np.zeros((height, width, 3), np.uint8)}
    with pytest.raises(InvalidRequest, match=f"image_path='{width}x{height}': is too narrow"):
        start(load(folder), SamplingParams(prompt="a dog", **CALL), pictures)
