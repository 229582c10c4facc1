"""Noise schedules: the levels of a request, as diffusers' own settings or formulas give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from engineless import load
from parity import check_parity
from tiny_checkpoints.schedulers import SD15

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import (
    NOISE_SCHEDULES,
    SOLVERS,
    View,
    noise_schedules_of,
    solvers_of,
)
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.validation import resolve
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Checkpoints = Callable[..., Path]

SETTINGS: dict[str, dict[str, Any]] = {
    "normal": {},
    "karras": {"use_karras_sigmas": True, "sigma_schedule": "karras"},
    "exponential": {"use_exponential_sigmas": True, "sigma_schedule": "exponential"},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "simple": {"timestep_spacing": "trailing"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "ddim_uniform": {"timestep_spacing": "leading"},
}
"""What a user of diffusers sets for each."""
CALL: dict[str, Any] = {
    "prompt": "a red heart",
    "negative_prompt": "blurry",
    "width": 64,
    "height": 64,
    "num_inference_steps": 5,
    "guidance_scale": 3.0,
    "seed": 3,
}
FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
NOISE_CASES = [
    (solver, name)
    for solver in solvers_of(View.NOISE)
    for name in NOISE_SCHEDULES[View.NOISE]
    if name in SOLVERS[solver].noise_schedules
    and name != "normal"
    # diffusers' Euler ancestral has no curves of its own
    and (solver != "euler_a" or name not in ("karras", "exponential", "beta"))
]


@pytest.fixture(scope="module")
def folder(checkpoints: Checkpoints) -> Path:
    return checkpoints("sd15")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> ComposedPipeline:
    return load(folder)


def solver(config: dict[str, Any], name: str | None, steps: int = 5, **schedule: Any) -> Solver:
    return make_solver(
        config,
        Schedule(num_inference_steps=steps, **schedule),
        name=name,
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )


def levels(made: Solver) -> torch.Tensor:
    sigmas: torch.Tensor = made._scheduler.sigmas
    return sigmas


@pytest.mark.parametrize(("solver_name", "name"), NOISE_CASES)
def test_each_solver_with_each_schedule_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, solver_name: str, name: str
) -> None:
    check_parity(
        pipeline,
        folder,
        solver=solver_name,
        stock_settings=SETTINGS[name],
        own_call={"noise_schedule": name},
        **CALL,
    )


@pytest.mark.parametrize("name", ["karras", "exponential", "beta"])
def test_euler_ancestral_takes_the_curves_of_euler(name: str) -> None:
    config = {**SD15, "_class_name": "PNDMScheduler"}
    ancestral, euler = (solver(config, each, noise_schedule=name) for each in ("euler_a", "euler"))
    assert torch.equal(levels(ancestral), levels(euler))
    assert torch.equal(ancestral.timesteps, euler.timesteps)


@pytest.mark.parametrize("name", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("solver_name", ["flow_euler", "flow_lcm", "unipc"])
def test_flow_solvers_take_the_curves_of_flow_euler(solver_name: str, name: str) -> None:
    stock: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_config(FLOW, **SETTINGS[name])
    stock.set_timesteps(5)
    made = solver(FLOW, solver_name, noise_schedule=name)
    torch.testing.assert_close(levels(made), stock.sigmas, atol=2e-6, rtol=0)
    torch.testing.assert_close(made.timesteps.float(), stock.timesteps, atol=1, rtol=0)


@pytest.mark.parametrize(
    ("name", "before_shift"),
    [
        ("simple", [1.0, 0.75, 0.5, 0.25]),
        ("sgm_uniform", [1.0, 0.75025, 0.5005, 0.25075]),
    ],
)
@pytest.mark.parametrize("solver_name", ["flow_euler", "unipc"])
def test_even_flow_schedules_are_shifted(
    solver_name: str, name: str, before_shift: list[float]
) -> None:
    made = solver(FLOW, solver_name, 4, noise_schedule=name)
    shifted = [3 * level / (1 + 2 * level) for level in before_shift]
    torch.testing.assert_close(levels(made), torch.tensor([*shifted, 0.0]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 41])
def test_linear_quadratic_is_mochis_schedule_without_a_shift(steps: int) -> None:
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    made = solver(FLOW, "flow_euler", steps, noise_schedule="linear_quadratic")
    expected = [1.0] if steps == 1 else linear_quadratic_schedule(steps, 0.025)
    torch.testing.assert_close(levels(made), torch.tensor([*expected, 0.0]))


@pytest.mark.parametrize(
    ("solver_name", "name"),
    [
        (solver_name, name)
        for solver_name in solvers_of(View.FLOW)
        for name in noise_schedules_of([solver_name], [View.FLOW])
    ],
)
def test_every_flow_schedule_falls_from_noise_to_picture(solver_name: str, name: str) -> None:
    sigmas = levels(solver(FLOW, solver_name, 7, noise_schedule=name))
    assert (sigmas.diff() <= 0).all()
    assert sigmas[0] > 0.999
    assert sigmas[-1] == 0


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("solver_name", ["ddim", "euler", "unipc", "dpmpp_2m"])
def test_timestep_spacing_of_the_request_equals_diffusers(
    pipeline: ComposedPipeline, folder: Path, solver_name: str, spacing: str
) -> None:
    check_parity(
        pipeline,
        folder,
        solver=solver_name,
        stock_settings={"timestep_spacing": spacing},
        own_call={"timestep_spacing": spacing},
        **CALL,
    )


def test_sigmas_of_the_request_equal_diffusers(pipeline: ComposedPipeline, folder: Path) -> None:
    call = {key: value for key, value in CALL.items() if key != "num_inference_steps"}
    sigmas = [14.6, 6.1, 2.2, 0.7, 0.0]
    check_parity(
        pipeline,
        folder,
        solver="euler",
        stock_call={"sigmas": sigmas},
        own_call={"sigmas": sigmas},
        num_inference_steps=4,
        **call,
    )


FLOW_CALL: dict[str, Any] = {
    "prompt": "a red heart",
    "width": 64,
    "height": 64,
    "max_sequence_length": 16,
}
FLOW_MODELS = {"flux-dev": {}, "qwenimage": {"true_cfg_scale": 1.0}}


@pytest.mark.parametrize("model", FLOW_MODELS)
def test_sigmas_of_a_flow_request_equal_diffusers(checkpoints: Checkpoints, model: str) -> None:
    sigmas, folder = [1.0, 0.8, 0.3], checkpoints(model)
    check_parity(
        load(folder),
        folder,
        solver="flow_euler",
        view=View.FLOW,
        stock_call={"sigmas": sigmas},
        own_call={"sigmas": sigmas},
        num_inference_steps=3,
        **FLOW_CALL,
        **FLOW_MODELS[model],
    )


@pytest.mark.parametrize("model", FLOW_MODELS)
def test_flow_shift_of_the_request_equals_diffusers(checkpoints: Checkpoints, model: str) -> None:
    folder = checkpoints(model)
    check_parity(
        load(folder),
        folder,
        solver="flow_euler",
        view=View.FLOW,
        stock_settings={"shift": 3.0, "use_dynamic_shifting": False, "shift_terminal": None},
        own_call={"flow_shift": 3.0},
        num_inference_steps=4,
        **FLOW_CALL,
        **FLOW_MODELS[model],
    )


def test_qwen_lightnings_schedule_is_a_flow_shift_of_3() -> None:
    """Its published scheduler: dynamic shifting between log 3 and log 3, and no terminal."""
    qwen = {**FLOW, "shift": 1.0, "use_dynamic_shifting": True, "shift_terminal": 0.02}
    even = np.linspace(1, 1 / 8, 8).tolist()
    made = solver(qwen, None, 8, sigmas=even, mu=0.7, flow_shift=3.0)
    published: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_config(
        {**qwen, "shift_terminal": None}
    )
    published.set_timesteps(sigmas=even, mu=float(np.log(3)))
    torch.testing.assert_close(levels(made), published.sigmas)


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("dpmpp_2m", "karras"),
        ("dpmpp_2m", "lu"),
        ("dpmpp_2m_sde", "karras"),
        ("dpmpp_2m_sde", "lu"),
        ("unipc", "karras"),
    ],
)
def test_last_step_of_no_length_is_taken(name: str, spacing: str) -> None:
    """With `sigma_min` at the end, karras and lu spacing arrive there one step early."""
    config = {**SD15, "_class_name": SOLVERS[name].scheduler, "final_sigmas_type": "sigma_min"}
    made = solver(config, name, 8, noise_schedule=spacing)
    latents = torch.ones(1, 4, 4, 4)
    for i in range(made.num_evaluations):
        latents, _ = made.step(0.1 * latents, i, latents)
    assert latents.isfinite().all()


REFUSED = [
    ({"scheduler": "ddim", "noise_schedule": "karras"}, "noise_schedule", "ddim allows normal"),
    ({"noise_schedule": "spiral"}, "noise_schedule", "this model allows normal, karras"),
    ({"scheduler": "lcm", "timestep_spacing": "trailing"}, "timestep_spacing", "no choice"),
    (
        {"noise_schedule": "simple", "timestep_spacing": "leading"},
        "timestep_spacing",
        "noise_schedule=simple",
    ),
    ({"scheduler": "ddim", "sigmas": [3.0, 1.0]}, "sigmas", "that take them: euler"),
    ({"scheduler": "euler", "sigmas": [1.0, 3.0]}, "sigmas", "must fall"),
    ({"scheduler": "euler", "sigmas": [0.0]}, "num_inference_steps", "1 to 1000"),
    ({"scheduler": "euler", "sigmas": [float("nan")]}, "sigmas", "0 to 1000"),
    ({"scheduler": "euler", "sigmas": ["many"]}, "sigmas", "a list of numbers"),
    (
        {"scheduler": "euler", "sigmas": [3.0, 1.0], "num_inference_steps": 3},
        "sigmas",
        "one per step",
    ),
    (
        {"scheduler": "euler", "sigmas": [3.0], "noise_schedule": "karras"},
        "sigmas",
        "conflicts",
    ),
    ({"flow_shift": 3.0}, "flow_shift", "not supported"),
]


@pytest.mark.parametrize(("given", "field", "message"), REFUSED)
def test_a_schedule_that_can_not_be_is_refused_with_its_reason(
    pipeline: ComposedPipeline, given: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as error:
        resolve(SamplingParams(prompt="x", **given), pipeline.model_info("test"))
    assert error.value.field == field


def test_sigmas_say_how_many_steps_there_are(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(prompt="x", scheduler="euler", sigmas=(5.0, 1.0, 0.0))
    assert resolve(params, pipeline.model_info("test")).num_inference_steps == 2
