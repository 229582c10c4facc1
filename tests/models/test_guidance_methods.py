"""Methods and the interval of guidance, compared with the guiders of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
)
from engineless import finish, load, run, run_each, run_joined, start
from parity import LATENTS, PIXELS, pixels_apart, relative
from tiny_checkpoints import reference
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.pipelines import guidance
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.guiding.formulas import beyond_negative, beyond_positive
from multimodal_gen.runtime.pipelines.guiding.interval import combined_branches
from multimodal_gen.runtime.stages.rows import Rows

BOTH, ONE = ("positive", "negative"), ("positive",)
SCALE, STEPS = 4.0, 5
SHAPES = ((1, 4, 8, 8), (1, 24, 16), (1, 4, 3, 8, 8))


class Running(SimpleNamespace):
    """The part of a request that guidance reads."""

    def __init__(self, steps: int = STEPS, order: int = 1, first: int = 0, **given: Any) -> None:
        params = SamplingParams(prompt="a", guidance_scale=SCALE, **given)
        super().__init__(
            params=params,
            conditioning={name: {} for name in BOTH},
            evaluation=first,
            first=first,
            momentum=None,
            evaluations=steps * order,
            order=order,
            latents=torch.empty(1, 0),
        )
        self.branches = combined_branches(self, flow=True)  # type: ignore[arg-type]

    def running(self) -> tuple[Any, Tensor]:
        return SimpleNamespace(num_evaluations=self.evaluations, order=self.order), self.latents

    def combined_at(self, evaluation: int) -> tuple[str, ...]:
        branches: tuple[str, ...] = self.branches[evaluation] if self.branches else BOTH
        return branches


def predictions(shape: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Predictions of a few evaluations."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(shape, generator=generator),
            0.5 + 0.7 * torch.randn(shape, generator=generator),
        )
        for _ in range(STEPS)
    ]


def theirs(guider: Any, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    made = []
    for step, (positive, negative) in enumerate(pairs):
        guider.set_state(step, len(pairs), torch.tensor(0))
        guider.prepare_inputs({})
        made.append(guider.forward(positive, negative).pred)
    return made


def ours(pairs: Sequence[tuple[Tensor, Tensor]], *, original: bool, **given: Any) -> list[Tensor]:
    combine = beyond_positive if original else beyond_negative
    guides = guidance.ClassifierFreeGuidance(combine, above=0 if original else 1)
    state, made = Running(**given), []
    state.latents = pairs[0][0]
    for evaluation, pair in enumerate(pairs):
        state.evaluation = evaluation
        rows = torch.cat(pair)[: len(state.combined_at(evaluation))]
        made.append(guides.guide(rows, state))  # type: ignore[arg-type]
    return made


METHODS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "rescale": (ClassifierFreeGuidance, {"guidance_rescale": 0.7}, {"guidance_rescale": 0.7}),
    "interval": (
        ClassifierFreeGuidance,
        {"start": 0.25, "stop": 0.7},
        {"guidance_start": 0.25, "guidance_stop": 0.7},
    ),
    "cfg_zero": (ClassifierFreeZeroStarGuidance, {}, {"guidance_method": "cfg_zero"}),
    "cfg_zero, rescaled, two steps": (
        ClassifierFreeZeroStarGuidance,
        {"zero_init_steps": 2, "stop": 0.8},
        {"guidance_method": "cfg_zero", "zero_init_steps": 2, "guidance_stop": 0.8},
    ),
    "apg as the library has it": (
        AdaptiveProjectedGuidance,
        {},
        {"guidance_method": "apg", "apg_eta": 1.0, "apg_norm": 15.0, "apg_momentum": 0.0},
    ),
    "apg": (
        AdaptiveProjectedGuidance,
        {
            "eta": 0.0,
            "adaptive_projected_guidance_rescale": 0.0,
            "adaptive_projected_guidance_momentum": -0.5,
        },
        {"guidance_method": "apg"},
    ),
    "apg, limited and rescaled": (
        AdaptiveProjectedGuidance,
        {
            "eta": 0.3,
            "adaptive_projected_guidance_rescale": 2.5,
            "adaptive_projected_guidance_momentum": -0.75,
            "guidance_rescale": 0.2,
        },
        {
            "guidance_method": "apg",
            "apg_eta": 0.3,
            "apg_norm": 2.5,
            "apg_momentum": -0.75,
            "guidance_rescale": 0.2,
        },
    ),
}


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_that_of_the_librarys_guider(
    name: str, shape: tuple[int, ...], original: bool
) -> None:
    guider, their, given = METHODS[name]
    made = guider(SCALE, use_original_formulation=original, **their)
    pairs = predictions(shape)
    results = zip(ours(pairs, original=original, **given), theirs(made, pairs), strict=True)
    for result, expected in results:
        assert torch.allclose(result, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 28, 100])
@pytest.mark.parametrize("interval", [(0.0, 0.5), (0.2, 0.8), (0.29, 0.7), (0.5, 1.0), (0.99, 1.0)])
def test_the_interval_begins_and_ends_with_the_steps_of_the_librarys(
    interval: tuple[float, float], steps: int
) -> None:
    guider = ClassifierFreeGuidance(SCALE, start=interval[0], stop=interval[1])
    state = Running(steps, guidance_start=interval[0], guidance_stop=interval[1])
    for step in range(steps):
        guider.set_state(step, steps, torch.tensor(0))
        assert len(state.combined_at(step)) == guider.num_conditions


def test_evaluations_of_one_step_are_guided_alike() -> None:
    state = Running(4, order=2, guidance_start=0.25, guidance_stop=0.75)
    assert state.branches == [ONE] * 2 + [BOTH] * 4 + [ONE] * 2


def test_the_interval_is_of_the_steps_that_a_request_makes() -> None:
    state = Running(8, first=4, guidance_stop=0.5)
    assert state.branches[4:] == [BOTH] * 2 + [ONE] * 2


def test_momentum_counts_an_evaluation_that_is_repeated_once() -> None:
    state, guides = Running(guidance_method="apg"), guidance.ClassifierFreeGuidance()
    results = []
    for evaluation, pair in ((i, p) for i, p in enumerate(predictions(SHAPES[0])) for _ in "ab"):
        state.evaluation = evaluation
        results.append(guides.guide(torch.cat(pair), state))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(results[::2], results[1::2], strict=True))


# -- requests

CUSTOM: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "sd15": (
        {"guidance_scale": 5.0},
        [
            {},
            {"guidance_start": 0.25, "guidance_stop": 0.75, "seed": 1},
            {"guidance_method": "apg", "apg_norm": 5.0, "seed": 2},
            {"guidance_method": "cfg_zero", "guidance_rescale": 0.7, "seed": 3},
        ],
    ),
    "flux-dev": (
        {"true_cfg_scale": 3.0, "negative_prompt": "cat", "max_sequence_length": 32},
        [
            {"guidance_stop": 0.5},
            {"guidance_method": "cfg_zero", "scheduler": "flow_heun", "seed": 1},
            {"guidance_method": "apg", "seed": 2},
        ],
    ),
}
BASE = SamplingParams(prompt="a red heart", width=48, height=32, num_inference_steps=4)


@pytest.mark.parametrize("name", CUSTOM)
def test_requests_with_different_guidance_share_a_batch(
    name: str, checkpoints: Callable[..., Path]
) -> None:
    pipeline = load(checkpoints(name))
    shared, changes = CUSTOM[name]
    requests = [replace(BASE, **shared, **change) for change in changes]
    alone = run_each(pipeline, requests)
    joined = run_joined(pipeline, requests, joins=range(len(requests)))
    plain = run_each(pipeline, [replace(BASE, **shared, seed=request.seed) for request in requests])
    for a, b in zip(alone, joined, strict=True):
        assert abs(a.pixels.astype(int) - b.pixels.astype(int)).max() <= 1
    different = [(a.pixels != b.pixels).any() for a, b in zip(alone, plain, strict=True)]
    assert different == [bool(change.keys() - {"seed"}) for change in changes]


def computed_rows(pipeline: ComposedPipeline, params: SamplingParams) -> list[int]:
    """Rows of each call of the denoiser."""
    seen: list[int] = []
    predict = pipeline.predict

    def count(rows: Rows) -> Tensor:
        seen.append(len(rows.latents))
        return predict(rows)

    state = start(pipeline, params)
    solver, _ = state.running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "predict", count)
        pipeline.forward(Phase.DENOISE, [state], solver.num_evaluations)
    finish(pipeline, state)
    return seen


def test_outside_the_interval_only_the_positive_branch_is_computed(
    checkpoints: Callable[..., Path],
) -> None:
    interval: dict[str, Any] = {"guidance_start": 0.25, "guidance_stop": 0.75}
    guided = replace(BASE, **CUSTOM["flux-dev"][0])
    flux = load(checkpoints("flux-dev"))
    assert computed_rows(flux, replace(guided, **interval)) == [1, 2, 2, 1]
    assert computed_rows(flux, replace(guided, guidance_method="cfg_zero")) == [2, 2, 2]


def test_quality_extrapolates_within_the_interval_alone(checkpoints: Callable[..., Path]) -> None:
    flux = load(checkpoints("flux-dev"))
    zero: dict[str, Any] = {"guidance_method": "cfg_zero", "zero_init_steps": 2}
    params = replace(BASE, **CUSTOM["flux-dev"][0], **zero, guidance_stop=0.5, quality="fast")
    params = replace(params, num_inference_steps=20)
    rows = computed_rows(flux, params)
    changed = rows.index(1)
    assert rows[:2] == [2, 2]
    assert set(rows[changed:]) == {1}
    assert 4 <= len(rows) < 18
    state = start(flux, params)
    assert [state.branches_at(i) for i in (0, 1, 2, 10)] == [(), (), BOTH, ONE]


PIPELINES: dict[str, dict[str, Any]] = {
    "sd15": {"guidance_scale": 5.0},
    "ltx": {"guidance_scale": 4.0, "num_frames": 9, "max_sequence_length": 16},
}


@pytest.mark.parametrize("name", PIPELINES)
def test_rescaled_guidance_is_that_of_the_librarys_pipeline(
    name: str, checkpoints: Callable[..., Path]
) -> None:
    folder = checkpoints(name)
    call: dict[str, Any] = {"prompt": "a", "height": 64, "width": 96, "num_inference_steps": 3}
    call |= {**PIPELINES[name], "guidance_rescale": 0.7}
    ours = run(load(folder), SamplingParams(**call, seed=0))
    theirs = reference(folder, **call)
    assert relative(ours, theirs) <= LATENTS
    assert pixels_apart(ours, theirs) <= PIXELS


def test_all_branches_of_videos_with_sound_are_left_out_outside_the_interval(
    checkpoints: Callable[..., Path],
) -> None:
    video = replace(
        BASE, num_frames=9, guidance_scale=3.0, stg_scale=1.0, modality_scale=3.0, width=64
    )
    pipeline = load(checkpoints("ltx2"))
    rows = computed_rows(pipeline, replace(video, guidance_start=0.25, guidance_stop=0.75))
    assert rows[0] == rows[3] == 1
    assert rows[1] == rows[2] > 2
