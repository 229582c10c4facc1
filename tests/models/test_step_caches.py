"""Requests whose evaluations are extrapolated: closeness, independence, and every kind of pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engineless import Output, finish, left, load, run, run_joined, start
from told import texts

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.step_cache import FEWEST_EVALUATIONS, UNCALIBRATED, StepCache
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.layers.lora import LoraUse
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.rows import Rows

Checkpoints = Callable[..., Path]

HEART = SamplingParams(prompt="a red heart", width=64, height=64, seed=1, num_inference_steps=20)
FAST, HIGH = replace(HEART, quality="fast"), replace(HEART, quality="high")
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(bundled_model: Path) -> Path:
    return bundled_model


def psnr(a: Output, b: Output) -> float:
    squares = (a.pixels.astype(float) - b.pixels.astype(float)) ** 2
    return float(10 * np.log10(255**2 / max(squares.mean(), 1e-3)))


def apart(a: Output, b: Output) -> int:
    return int(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max())


def computed(state: RequestState) -> list[int]:
    """Evaluations of a pass that has begun that run the denoiser."""
    solver, _ = state.running()
    return [i for i in range(state.first, solver.num_evaluations) if state.branches_at(i)]


def rows_run(pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call of the denoiser from now on."""
    calls: list[int] = []
    predict = pipeline.predict

    def counting(rows: Rows) -> torch.Tensor:
        calls.append(len(rows.latents))
        return predict(rows)

    monkeypatch.setattr(pipeline, "predict", counting)
    return calls


@pytest.mark.parametrize(("asked", "least"), [(HIGH, 42), (FAST, 36)], ids=["high", "fast"])
def test_it_computes_what_its_rule_says_and_stays_close_to_the_exact_picture(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch, asked: SamplingParams, least: float
) -> None:
    asked = replace(asked, width=96, height=96)
    exact = run(pipeline, replace(asked, quality="exact"))
    calls = rows_run(pipeline, monkeypatch)
    found = run(pipeline, asked)
    assert calls == [2] * len(pipeline.step_caches[asked.quality].computed)
    assert psnr(found, exact) > least
    assert apart(found, exact) > 0


def test_a_picture_does_not_depend_on_its_neighbours(pipeline: ComposedPipeline) -> None:
    requests = [
        FAST,
        replace(HEART, prompt="a dog", seed=2),
        replace(HIGH, prompt="a pizza", seed=3, num_inference_steps=13),
        replace(FAST, seed=4, true_cfg_scale=1.0),
        replace(FAST, prompt="a cat", seed=5),
    ]
    alone = [run(pipeline, params) for params in requests]
    together = run_joined(pipeline, requests, joins=[0, 0, 3, 1, 7])
    assert all(apart(a, b) <= 1 for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", ["sd15", "wan22-ti2v", "ltx2"])
def test_families_of_all_kinds_extrapolate(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pipeline = load(checkpoints(name))
    frames = {"num_frames": 5} if "num_frames" in pipeline.parameters else {}
    length = {"max_sequence_length": 32} if name in ("wan22-ti2v", "ltx2") else {}
    params = replace(FAST, num_inference_steps=12, scheduler=None, **frames, **length)
    state = start(pipeline, params)
    assert [each for each in texts(state.warnings) if "quality" in each] == []
    calls = rows_run(pipeline, monkeypatch)
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert len(calls) == len(computed(state)) < 12
    assert torch.isfinite(state.running()[1]).all()


@pytest.mark.parametrize("steps", [12, 13])
def test_nothing_is_extrapolated_across_wans_experts(checkpoints: Checkpoints, steps: int) -> None:
    pipeline = load(checkpoints("wan22"))
    params = replace(
        FAST, num_frames=5, max_sequence_length=16, num_inference_steps=steps, guidance_scale=4.0
    )
    state = start(pipeline, params)
    kinds = [pipeline.batch_kind(state, i) for i in range(steps)]
    switch = kinds.index(kinds[-1])
    assert 2 < switch < steps - 1
    assert {0, 1, switch, switch + 1} <= {*computed(state)}
    assert len(computed(state)) < steps


def test_evaluations_at_which_adapters_change_are_computed(pipeline: ComposedPipeline) -> None:
    rule = pipeline.step_caches["fast"]
    changes = [4, 8, 13]
    loras = (LoraUse(1, 0.0, 4 / 20, 13 / 20), LoraUse(2, 0.0, 8 / 20, 1.0))
    found = computed(start(pipeline, FAST, loras=loras))
    assert {each for at in changes for each in (at, at + 1)} <= {*found}
    assert {*rule.computed} <= {*found}
    assert len(found) < 20


def test_a_pass_from_an_image_extrapolates_after_its_own_start(pipeline: ComposedPipeline) -> None:
    exact, fast = (
        replace(each, num_inference_steps=40, strength=0.5, quality=quality)
        for each, quality in ((HEART, "exact"), (FAST, "fast"))
    )
    state = start(pipeline, fast, {"image": PICTURE})
    assert state.first == 20
    found = computed(state)
    assert found[:2] == [20, 21]
    assert len(found) < 20
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert psnr(finish(pipeline, state), run(pipeline, exact, {"image": PICTURE})) > 33


def test_the_second_pass_of_an_upscaled_picture_has_a_cache_of_its_own(
    pipeline: ComposedPipeline,
) -> None:
    state = start(pipeline, replace(FAST, upscale="1.5:0.6:20"))
    assert state.second is not None
    expected = computed(state.second)
    assert 2 <= len(expected) < left(state.second)
    pipeline.forward(Phase.DENOISE, [state], left(state))
    pipeline.forward(Phase.DECODE, [state], 1)
    assert computed(state.second) == expected
    assert state.second.cache is not None
    assert state.second.cache is not state.cache
    assert state.second.cache.predictions == []


def test_a_solver_of_two_evaluations_a_step_extrapolates_either(
    pipeline: ComposedPipeline,
) -> None:
    heun = replace(HEART, scheduler="flow_heun")
    state = start(pipeline, replace(heun, quality="high"))
    assert len(computed(state)) < 39
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert psnr(finish(pipeline, state), run(pipeline, heun)) > 33


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_inference_steps": FEWEST_EVALUATIONS - 1}, "fewer than 9 evaluations"),
        ({"scheduler": "flow_lcm"}, "adds noise in each step"),
    ],
)
def test_where_all_must_be_computed_a_warning_says_why(
    pipeline: ComposedPipeline, change: dict[str, Any], reason: str
) -> None:
    params = replace(FAST, **change)
    state = start(pipeline, params)
    assert state.cache is None
    (warning,) = texts(told for told in state.warnings if told.field != "width")
    assert warning.startswith("quality=fast has no effect: ")
    assert reason in warning
    exact = run(pipeline, replace(params, quality="exact"))
    assert apart(run(pipeline, params), exact) == 0


def test_an_exact_request_has_no_cache(pipeline: ComposedPipeline) -> None:
    state = start(pipeline, HEART)
    assert state.cache is None
    assert {warning.field for warning in state.warnings} == {"width"}  # its size


def test_a_request_that_is_prepared_again_is_extrapolated_alike(
    pipeline: ComposedPipeline,
) -> None:
    state = start(pipeline, FAST)
    pipeline.forward(Phase.DENOISE, [state], 7)
    pipeline.forward(Phase.ENCODE, [state], 1)
    assert left(state) == 20
    pipeline.forward(Phase.DENOISE, [state], 20)
    assert apart(finish(pipeline, state), run(pipeline, FAST)) == 0


def test_a_negative_branch_that_is_extrapolated_costs_half_an_evaluation(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = StepCache(computed=(*range(20),), guided=(*range(0, 20, 2),))
    monkeypatch.setattr(pipeline, "step_caches", {"high": halved})
    exact = run(pipeline, HEART)
    calls = rows_run(pipeline, monkeypatch)
    found = run(pipeline, HIGH)
    assert calls == [2, 2] + [2, 1] * 9
    assert psnr(found, exact) > 45


@pytest.mark.parametrize(
    "guided",
    [
        {"guidance_start": 0.25, "guidance_stop": 0.75},
        {"guidance_method": "cfg_zero"},
        {"guidance_method": "apg"},
    ],
)
def test_it_goes_with_every_kind_of_guidance(
    pipeline: ComposedPipeline, guided: dict[str, Any]
) -> None:
    exact = replace(HEART, width=96, height=96, true_cfg_scale=3.0, **guided)
    state = start(pipeline, replace(exact, quality="high"))
    assert state.extrapolated >= 7
    pipeline.forward(Phase.DENOISE, [state], left(state))
    assert psnr(finish(pipeline, state), run(pipeline, exact)) > 33


def test_a_pipeline_whose_loop_is_the_librarys_refuses_it(checkpoints: Checkpoints) -> None:
    pipeline = load(checkpoints("lumina2"))
    with pytest.raises(InvalidRequest, match=r"quality.*this model allows exact"):
        start(pipeline, replace(FAST, num_inference_steps=2))


def with_rules(bundled_model: Path, to: Path, rules: object) -> Path:
    copy = Path(shutil.copytree(bundled_model, to, dirs_exist_ok=True))
    (copy / "step_caches.json").write_text(json.dumps(rules))
    return copy


def test_a_checkpoints_own_rules_come_before_its_familys(
    bundled_model: Path, tmp_path: Path
) -> None:
    own = {"high": {"computed": [0, 10], "slope": 0}}
    pipeline = load(with_rules(bundled_model, tmp_path, own))
    assert pipeline.step_caches["high"] == StepCache(computed=(0, 10), slope=0)
    assert pipeline.step_caches["fast"] == UNCALIBRATED["fast"]


@pytest.mark.parametrize("rules", [{"high": {"computed": [1]}}, {"exact": {"computed": [0]}}, []])
def test_rules_that_cannot_be_followed_are_named(
    bundled_model: Path, tmp_path: Path, rules: object
) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"step_caches\.json"):
        load(with_rules(bundled_model, tmp_path, rules))


def _prompts() -> Sequence[str]:
    import multimodal_gen.benchmarks.step_caches as calibration

    return (Path(calibration.__path__[0]) / "prompts.txt").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(("quality", "mean", "worst"), [("high", 45, 37), ("fast", 40, 30)])
def test_the_bundled_models_rules_keep_what_they_promise(
    pipeline: ComposedPipeline, quality: str, mean: float, worst: float
) -> None:
    requests = [SamplingParams(prompt=each, seed=i) for i, each in enumerate(_prompts()[16:])]
    assert len(requests) == 64
    pairs = [
        (run(pipeline, params), run(pipeline, replace(params, quality=quality)))
        for params in requests
    ]
    ratios = [psnr(found, exact) for exact, found in pairs]
    assert np.mean(ratios) >= mean
    assert min(ratios) >= worst
