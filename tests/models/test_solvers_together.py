"""Steps of several requests as one tensor: equal to those of each alone, and to diffusers'."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from solver_cases import (
    CASES,
    CONFIGS,
    SHAPE,
    diffusers_loop,
    run,
    solver_from,
    solver_of,
    toy_model,
)
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.models.schedulers import noise
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.steps import Steps

MODELS = {model: [name for of, name in CASES if of == model] for model in CONFIGS}
APART = ("sd15", "wan", "cogvideox")
"""Models that share no solver."""


def state_of(solver: Solver, latents: Tensor, first: int = 0) -> RequestState:
    state = RequestState.of(Req(id="test", params=SamplingParams(prompt="a", seed=0)))
    state.solver, state.latents, state.evaluation = solver, latents, first
    solver.weigh(first)
    return state


def advance(steps: Steps, states: Sequence[RequestState]) -> list[Tensor]:
    """One evaluation; returns the estimates of x0."""
    seen, timesteps = steps.inputs(states, range(len(states)))
    rows = zip(seen.split(1), timesteps, strict=True)
    predictions = torch.cat([toy_model(row, timestep) for row, timestep in rows])
    return [estimate() for estimate in steps.take(states, predictions)]


def finish(states: Sequence[RequestState]) -> list[Tensor]:
    """Let them step until none is left; those that are done leave."""
    while left := [state for state in states if state.evaluations_left]:
        steps = Steps(left)
        for _ in range(min(state.evaluations_left for state in left)):
            advance(steps, left)
    return [state.running()[1] for state in states]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("model", APART)
def test_unlike_solvers_step_together_bit_for_bit_as_alone(model: str, dtype: torch.dtype) -> None:
    names = MODELS[model]
    alone = [finish([state_of(*solver_of(model, name, dtype=dtype))])[0] for name in names]
    together = finish([state_of(*solver_of(model, name, dtype=dtype)) for name in names])
    for name, one, joined in zip(names, alone, together, strict=True):
        assert one.dtype == joined.dtype == dtype
        assert torch.equal(one, joined), name


@pytest.mark.parametrize(("model", "name"), CASES)
def test_weights_give_what_diffusers_loop_gives(model: str, name: str) -> None:
    state = state_of(*solver_of(model, name))
    assert state.running()[0].weights is not None
    expected = diffusers_loop(model, name, torch.float32)
    (result,) = finish([state])
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("model", "name"), [case for case in CASES if case[0] in APART])
def test_weights_estimate_x0_as_the_solver_does(model: str, name: str) -> None:
    solver, latents = solver_of(model, name)
    state = state_of(*solver_of(model, name))
    steps = Steps([state])
    for i in range(solver.num_evaluations):
        prediction = toy_model(solver.scale_input(latents, i), solver.timesteps[i])
        latents, expected = solver.step(prediction, i, latents)
        (estimate,) = advance(steps, [state])
        assert (estimate - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("model", APART)
def test_requests_may_join_leave_and_come_back(model: str) -> None:
    def made() -> list[RequestState]:
        return [state_of(*solver_of(model, name, seed)) for seed, name in enumerate(MODELS[model])]

    expected, states = finish(made()), made()
    for _ in range(3):
        advance(Steps(states[::2]), states[::2])
    for state in states[1::2]:
        advance(Steps([state]), [state])
    shared = states[:4]
    steps = Steps(shared)
    for _ in range(2):
        advance(steps, shared)
    advance(Steps(shared[::-1]), shared[::-1])
    assert not steps.are_of(shared)
    results = zip(finish(states), expected, MODELS[model], strict=True)
    assert [name for result, alone, name in results if not torch.equal(result, alone)] == []


def test_requests_that_start_late_or_have_more_steps_share_an_evaluation() -> None:
    def made() -> list[RequestState]:
        states = []
        for first, steps, name in ((0, 4, "euler"), (3, 9, "dpmpp_2m"), (2, 6, "euler_a")):
            solver = solver_from(CONFIGS["sd15"], name=name, num_inference_steps=steps)
            solver.begin(first)
            states.append(state_of(solver, torch.ones(SHAPE) * steps, first))
        return states

    alone = [finish([state])[0] for state in made()]
    assert all(map(torch.equal, finish(made()), alone))


@pytest.mark.parametrize("settings", [{"clip_sample": True}, {"thresholding": True}])
def test_solvers_whose_steps_are_no_weighted_sums_step_apart(settings: dict[str, Any]) -> None:
    config = {**CONFIGS["sd15"], **settings}
    states = [state_of(solver_from(config, name="ddim"), torch.randn(SHAPE)) for _ in range(2)]
    states.append(state_of(solver_from(CONFIGS["sd15"], name="ddim"), torch.randn(SHAPE)))
    starts = [state.running()[1] for state in states]
    assert [state.running()[0].weights is None for state in states] == [True, True, False]
    together = finish(states)
    for solver, begun, result in zip((config, config), starts, together, strict=False):
        assert torch.equal(run(solver_from(solver, name="ddim"), begun), result)


def test_a_step_that_fails_leaves_all_requests_where_they_were() -> None:
    def made() -> list[RequestState]:
        config = {**CONFIGS["sd15"], "clip_sample": True}
        apart = [state_of(solver_from(config, name="ddpm"), torch.ones(SHAPE)) for _ in range(2)]
        return [*apart, state_of(*solver_of("sd15", "dpmpp_2m_sde"))]

    expected, states = finish(made()), made()
    steps = Steps(states)
    advance(steps, states)
    broken = states[1].running()[0]
    whole, broken.step = broken.step, lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        advance(steps, states)
    broken.step = whole  # type: ignore[method-assign]
    assert [state.evaluation for state in states] == [1, 1, 1]
    assert all(map(torch.equal, finish(states), expected))


def test_noise_is_drawn_ahead_within_a_bound_and_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (expected,) = finish([state_of(*solver_of("sd15", "dpm2_a"))])
    monkeypatch.setattr(noise, "AHEAD_BYTES", 3 * 4 * torch.Size(SHAPE).numel())
    state = state_of(*solver_of("sd15", "dpm2_a"))
    assert torch.equal(finish([state])[0], expected)
    drawn = state.running()[0].noise._drawn
    assert len(drawn) <= 3


def test_latents_that_were_replaced_after_a_step_are_stepped_from() -> None:
    def made() -> list[RequestState]:
        return [state_of(*solver_of("sd15", name)) for name in ("euler", "dpmpp_2m")]

    apart, states = made(), made()
    steps = Steps(states)
    for _ in range(3):
        for state in apart:
            advance(Steps([state]), [state])
        advance(steps, states)
        for state in (apart[0], states[0]):
            state.latents = state.running()[1] / 2
    pairs = zip(apart, states, strict=True)
    assert all(torch.equal(one.running()[1], two.running()[1]) for one, two in pairs)


def test_the_tensors_of_requests_are_freed_with_them() -> None:
    state = state_of(*solver_of("sd15", "unipc"))
    steps = Steps([state])
    advance(steps, [state])
    latents = weakref.ref(state.running()[1])
    del state
    gc.collect()
    assert latents() is None
