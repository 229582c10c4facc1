"""Guidance objects: which branches there are, and what becomes of their predictions."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engineless import load, start
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.runtime.pipelines.guidance import (
    ClassifierFreeGuidance,
    NoGuidance,
    TrueCfgGuidance,
)
from multimodal_gen.runtime.pipelines.guiding.formulas import beyond_positive, keeping_norm

BOTH = ("positive", "negative")
PREDICTIONS = torch.tensor([[[3.0, 4.0]], [[1.0, 2.0]]])


def asked(**params: Any) -> SamplingParams:
    return SamplingParams(prompt="a", **params)


def guided(guidance: Any, prediction: torch.Tensor = PREDICTIONS, **params: Any) -> torch.Tensor:
    branches = BOTH[: len(prediction)]
    state = SimpleNamespace(params=asked(**params), evaluation=0, combined_at=lambda i: branches)
    result: torch.Tensor = guidance.guide(prediction, state)
    return result


@pytest.mark.parametrize(("scale", "branches"), [(0.0, 1), (1.0, 1), (1.5, 2)])
def test_a_scale_of_one_needs_no_negative_branch(scale: float, branches: int) -> None:
    guidance = ClassifierFreeGuidance()
    assert guidance.branches(asked(guidance_scale=scale)) == BOTH[:branches]


def test_a_scale_that_counts_from_the_positive_branch_needs_none_at_zero() -> None:
    guidance = ClassifierFreeGuidance(beyond_positive, above=0)
    assert guidance.branches(asked(guidance_scale=0.0)) == BOTH[:1]
    assert guidance.branches(asked(guidance_scale=0.5)) == BOTH


def test_true_guidance_needs_a_negative_prompt() -> None:
    guidance = TrueCfgGuidance()
    assert guidance.branches(asked(true_cfg_scale=3.0)) == BOTH[:1]
    assert guidance.branches(asked(true_cfg_scale=3.0, negative_prompt="")) == BOTH
    assert guidance.branches(asked(negative_prompt="")) == BOTH[:1]


def test_one_branch_is_left_as_it_is() -> None:
    alone = PREDICTIONS[:1]
    assert torch.equal(guided(ClassifierFreeGuidance(), alone, guidance_scale=1.0), alone)
    assert torch.equal(guided(NoGuidance(), alone), alone)


def test_the_scale_leads_from_the_negative_prediction_through_the_positive_one() -> None:
    result = guided(ClassifierFreeGuidance(), guidance_scale=2.0)
    assert result.tolist() == [[[5.0, 6.0]]]


def test_beyond_the_positive_prediction_the_scale_is_one_less() -> None:
    result = guided(ClassifierFreeGuidance(beyond_positive, above=0), guidance_scale=1.0)
    assert result.tolist() == [[[5.0, 6.0]]]


def test_a_token_may_keep_the_norm_of_its_positive_prediction() -> None:
    result = guided(TrueCfgGuidance(keeping_norm), true_cfg_scale=2.0, negative_prompt="")
    assert torch.allclose(result.norm(dim=-1), torch.tensor([[5.0]]))
    assert torch.allclose(result[..., 0] / result[..., 1], torch.tensor([[5 / 6]]))


def test_guidance_may_be_computed_in_float32() -> None:
    half = PREDICTIONS.bfloat16()
    assert guided(ClassifierFreeGuidance(float32=True), half, guidance_scale=2.0).dtype == (
        torch.float32
    )
    assert guided(ClassifierFreeGuidance(), half, guidance_scale=2.0).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "params", "idle"),
    [
        ("flux-schnell", {}, []),
        ("flux-schnell", {"guidance_scale": 7.0}, ["guidance_scale"]),
        ("flux-schnell", {"negative_prompt": "a dog"}, ["negative_prompt"]),
        ("flux-schnell", {"negative_prompt": "a dog", "true_cfg_scale": 4.0}, []),
        ("flux-schnell", {"true_cfg_scale": 4.0}, ["true_cfg_scale"]),
        ("flux-dev", {"guidance_scale": 7.0}, []),
        ("flux2-klein", {"negative_prompt": "a dog"}, ["negative_prompt"]),
        ("flux2-klein-base", {"negative_prompt": "a dog", "guidance_scale": 2.0}, []),
        ("qwenimage", {"guidance_scale": 7.0}, ["guidance_scale"]),
        ("qwenimage", {"negative_prompt": "", "true_cfg_scale": 1.0}, []),
        ("sd15", {"negative_prompt": "a dog", "guidance_scale": 3.0}, []),
        ("sd15", {"negative_prompt": "a dog", "guidance_scale": 1.0}, ["negative_prompt"]),
        ("lumina2", {"negative_prompt": "a dog", "guidance_scale": 1.0}, []),
    ],
)
def test_guidance_that_does_nothing_is_named_in_the_warnings(
    checkpoints: Callable[..., Path], name: str, params: dict[str, Any], idle: list[str]
) -> None:
    asked_for = asked(width=64, height=64, num_inference_steps=2, **params)
    warnings = start(load(checkpoints(name)), asked_for).warnings
    assert [warning.partition(" has no effect")[0] for warning in texts(warnings)] == idle
