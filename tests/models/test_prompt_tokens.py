"""The number of tokens of a request's prompts, by which use is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engineless import load, start

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


def counted(pipeline: ComposedPipeline, prompt: str, **params: Any) -> int:
    size = {"width": 64, "height": 64, "num_inference_steps": 2}
    return start(pipeline, SamplingParams(prompt=prompt, **{**size, **params})).prompt_tokens


@pytest.fixture(scope="module")
def sd15(checkpoints: Callable[..., Path]) -> ComposedPipeline:
    return load(checkpoints("sd15"))


def test_more_words_are_more_tokens_and_none_is_none(sd15: ComposedPipeline) -> None:
    few, many = (counted(sd15, prompt, guidance_scale=1.0) for prompt in ("a cat", "a cat " * 90))
    assert 0 < few < 10
    assert many == 90 * few  # also those that don't fit
    assert counted(sd15, "", guidance_scale=1.0) == 0


def test_a_negative_prompt_counts_where_it_is_read(sd15: ComposedPipeline) -> None:
    alone = counted(sd15, "a cat", guidance_scale=1.0, negative_prompt="a cat")
    assert counted(sd15, "a cat", guidance_scale=5.0, negative_prompt="a cat") == 2 * alone


def test_weights_are_no_tokens(sd15: ComposedPipeline) -> None:
    plain = counted(sd15, "a cat", guidance_scale=1.0)
    weighted = counted(sd15, "a (cat:1.3)", guidance_scale=1.0, prompt_syntax="a1111")
    assert weighted == plain


@pytest.mark.parametrize("name", ["flux-dev", "krea2", "lumina2", "qwenimage", "wan"])
def test_each_kind_of_tokenizer_counts(checkpoints: Callable[..., Path], name: str) -> None:
    pipeline = load(checkpoints(name))
    assert 0 < counted(pipeline, "a cat") <= 12
