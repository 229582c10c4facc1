"""Every solver with every kind of checkpoint: the same invariants, on one toy model."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from solver_cases import (
    CASES,
    CONFIGS,
    FLOW_EULER,
    SHAPE,
    diffusers_loop,
    diffusers_scheduler,
    evaluate,
    run,
    solver_from,
    solver_of,
)
from torch import Tensor

from multimodal_gen.configs.solver_choice import default_solver_name, solver_names
from multimodal_gen.configs.solvers import SOLVERS
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest

every_case = pytest.mark.parametrize(("model", "name"), CASES)


@every_case
def test_a_solver_is_stochastic_if_its_steps_draw_noise(model: str, name: str) -> None:
    solver, latents = solver_of(model, name)
    generator = solver._step_options.get("generator", torch.Generator())
    before = generator.get_state()
    run(solver, latents)
    assert solver.stochastic != torch.equal(generator.get_state(), before)


def evaluation_levels(scheduler: Any) -> list[tuple[float, float]]:
    """(alpha, sigma) of what the model sees at each evaluation: alpha x0 + sigma noise."""
    if not hasattr(scheduler, "sigmas"):
        alphas = scheduler.alphas_cumprod[scheduler.timesteps].double()
        return list(zip(alphas.sqrt().tolist(), (1 - alphas).sqrt().tolist(), strict=True))
    sigmas = scheduler.sigmas.double()[: len(scheduler.timesteps)]
    if hasattr(scheduler, "sigmas_interpol"):  # what KDPM2's second evaluations are made at
        first = 0 if hasattr(scheduler, "sigmas_down") else 1
        sigmas[1::2] = scheduler.sigmas_interpol.double()[first::2][: len(sigmas) // 2]
    if scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction":
        return list(zip((1 - sigmas).tolist(), sigmas.tolist(), strict=True))
    alphas = 1 / (1 + sigmas**2).sqrt()
    return list(zip(alphas.tolist(), (sigmas * alphas).tolist(), strict=True))


def perfect_prediction(scheduler: Any, i: int, seen: Tensor, target: Tensor) -> Tensor:
    """What a model that knows x0 = target predicts."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if hasattr(scheduler, "precondition_outputs"):
        sigma = scheduler.sigmas[i]
        sample = seen / scheduler.precondition_inputs(torch.ones(1), sigma)
        nothing, one = torch.zeros(1), torch.ones(1)
        skipped = sample * scheduler.precondition_outputs(one, nothing, sigma)
        scale = scheduler.precondition_outputs(nothing, one, sigma)
        prediction: Tensor = (target - skipped) / scale
        return prediction
    alpha, sigma = evaluation_levels(scheduler)[i]
    noise = (seen - alpha * target) / sigma
    if kind == "v_prediction":
        return alpha * noise - sigma * target
    if kind == "sample":
        return target
    return noise - target if kind == "flow_prediction" else noise


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_solver_is_bit_equal_to_the_loop_of_diffusers(
    model: str, name: str, dtype: torch.dtype
) -> None:
    result = run(*solver_of(model, name, dtype=dtype))
    expected = diffusers_loop(model, name, dtype)
    assert result.dtype == expected.dtype
    assert result.isfinite().all()
    assert torch.equal(result, expected)


@every_case
def test_timesteps_are_what_diffusers_gives_the_model(model: str, name: str) -> None:
    expected = diffusers_scheduler(model, name).timesteps
    solver, _ = solver_of(model, name)
    assert solver.timesteps.dtype == expected.dtype
    assert torch.equal(solver.timesteps, expected)
    assert solver.num_evaluations == len(expected)


@pytest.mark.parametrize(
    ("model", "name", "evaluations"),
    [("sd15", "pndm", 21), ("sd15", "ddim", 20), ("wan", "flow_heun", 39), ("wan", "unipc", 20)],
)
def test_num_evaluations_of_twenty_steps(model: str, name: str, evaluations: int) -> None:
    solver = solver_from(CONFIGS[model], name=name, num_inference_steps=20)
    assert solver.num_evaluations == evaluations


@every_case
def test_perfect_model_gives_its_x0_at_every_evaluation_and_ends_there(
    model: str, name: str
) -> None:
    target = torch.linspace(-0.9, 0.9, 36 * 8).reshape(SHAPE)
    reference = diffusers_scheduler(model, name)
    solver, latents = solver_of(model, name)
    for i in range(solver.num_evaluations):
        seen = solver.scale_input(latents, i)
        prediction = perfect_prediction(reference, i, seen, target)
        latents, x0 = solver.step(prediction, i, latents)
        torch.testing.assert_close(x0.float(), target, atol=2e-3, rtol=0)
    # DDIM and PNDM end at the noise level of training step 0 when set_alpha_to_one is false.
    torch.testing.assert_close(latents, target, atol=0.15, rtol=0)


@every_case
def test_interleaved_solvers_do_not_disturb_one_another(model: str, name: str) -> None:
    alone = [run(*solver_of(model, name, seed)) for seed in (1, 2)]
    (first, a), (second, b) = (solver_of(model, name, seed) for seed in (1, 2))
    a = evaluate(first, 0, a)
    for i in range(1, first.num_evaluations):
        a, b = evaluate(first, i, a), evaluate(second, i - 1, b)
    b = evaluate(second, second.num_evaluations - 1, b)
    assert torch.equal(a, alone[0])
    assert torch.equal(b, alone[1])


@every_case
def test_steps_never_read_the_latents_values(model: str, name: str) -> None:
    solver, latents = solver_of(model, name)
    latents = latents.to("meta")  # where reading a value raises
    for i in range(solver.num_evaluations):
        seen = solver.scale_input(latents, i)
        latents, x0 = solver.step(seen.clone(), i, latents)
    assert latents.shape == x0.shape == SHAPE


@pytest.mark.parametrize("model", CONFIGS)
def test_no_name_is_the_checkpoints_own_solver(model: str) -> None:
    own = default_solver_name(CONFIGS[model])
    assert torch.equal(run(*solver_of(model, None)), run(*solver_of(model, own)))


def test_runge_kutta_start_of_pndm_estimates_x0_too() -> None:
    config = {**CONFIGS["sd15"], "skip_prk_steps": False}
    check_estimates("pndm", config, num_inference_steps=8)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_unipc_in_noise_form_estimates_x0_too(kind: str) -> None:
    config = {
        **CONFIGS["sd15"],
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": kind,
        "predict_x0": False,
        "final_sigmas_type": "sigma_min",
    }
    check_estimates("unipc", config, num_inference_steps=4)


def check_estimates(name: str, config: dict[str, Any], num_inference_steps: int) -> None:
    """A model that predicts perfectly has its target estimated at every evaluation."""
    target = torch.full(SHAPE, 0.4)
    solver = solver_from(config, num_inference_steps=num_inference_steps)
    reference: Any = getattr(diffusers, SOLVERS[name].scheduler).from_config(config)
    reference.set_timesteps(num_inference_steps)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for i in range(solver.num_evaluations):
        prediction = perfect_prediction(reference, i, latents, target)
        latents, x0 = solver.step(prediction, i, latents)
        torch.testing.assert_close(x0, target, atol=2e-3, rtol=0)


def test_rising_sigmas_estimate_x0_at_their_end() -> None:
    solver = solver_from({**FLOW_EULER, "shift": 1.0, "invert_sigmas": True})
    target = torch.full(SHAPE, 0.4)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    velocity = target - latents
    for i in range(solver.num_evaluations):
        latents, x0 = solver.step(velocity, i, latents)
    torch.testing.assert_close(latents, target)
    torch.testing.assert_close(x0, target)


def test_stochastic_flow_matching_draws_from_the_requests_generator() -> None:
    config = {**FLOW_EULER, "shift": 1.0, "stochastic_sampling": True}
    results = [
        solver_from(config, seed=seed).step(torch.ones(SHAPE), 0, torch.ones(SHAPE))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][0], results[2][0])


def test_flow_shift_of_the_request_replaces_the_checkpoints() -> None:
    for name in ("flow_euler", "flow_heun", "unipc"):
        shifted = solver_from(CONFIGS["dev"], name=name, flow_shift=7.0)
        expected = solver_from({**CONFIGS["schnell"], "shift": 7.0}, name=name)
        assert torch.equal(shifted.timesteps, expected.timesteps)


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("wan", ("flow_euler", "flow_heun", "flow_lcm", "unipc")),
        ("sana", ("dpmpp_2m", "flow_euler", "flow_heun", "flow_lcm", "unipc")),
        (
            "sd15",
            (
                "ddpm",
                "ddim",
                "pndm",
                "euler",
                "euler_a",
                "heun",
                "lms",
                "dpm2",
                "dpm2_a",
                "dpmpp_2m",
                "dpmpp_2m_sde",
                "dpmpp_3m_sde",
                "dpmpp_2s",
                "dpmpp_sde",
                "deis",
                "lcm",
                "tcd",
                "unipc",
            ),
        ),
        ("cogvideox", ("cogvideox_ddim", "cogvideox_dpm")),
    ],
)
def test_names_that_a_checkpoint_allows(model: str, allowed: tuple[str, ...]) -> None:
    assert solver_names(CONFIGS[model]) == allowed


def test_inverted_sigmas_allow_the_euler_class_only() -> None:
    assert solver_names({**FLOW_EULER, "invert_sigmas": True}) == ("flow_euler",)


@pytest.mark.parametrize(
    ("model", "name"), [("schnell", "ddim"), ("sdxl", "flow_euler"), ("wan", "magic")]
)
def test_solver_that_does_not_suit_the_checkpoint_is_refused(model: str, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}'.*allows .*unipc") as error:
        solver_from(CONFIGS[model], name=name)
    assert error.value.field == "scheduler"


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        ("sd15", {"flow_shift": 3.0}, "flow_shift"),
        ("wan", {"flow_shift": 0.0}, "flow_shift"),
        ("sd15", {"num_inference_steps": 1001}, "num_inference_steps"),
        ("sd15", {"num_inference_steps": 1000}, "num_inference_steps"),  # 1000 + steps_offset
        ("sdxl", {"num_inference_steps": 1001}, "num_inference_steps"),
        ("sdxl", {"num_inference_steps": 999, "name": "dpmpp_2m"}, "num_inference_steps"),
    ],
)
def test_other_bad_values_name_their_field(model: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        solver_from(CONFIGS[model], **options)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "os.system"}, "os.system.*PNDMScheduler"),
        ({}, "_class_name=None"),
        ({**CONFIGS["sd15"], "beta_schedule": "zigzag"}, "PNDMScheduler: zigzag"),
        ({**CONFIGS["sd15"], "num_train_timesteps": "many"}, "PNDMScheduler"),
        (CONFIGS["dev"], "mu"),
    ],
)
def test_config_that_can_not_be_used_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        solver_from(config)
