"""What the pretended device sees of the steps of every solver.

Import it when the device is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pretend_device import PretendDevice
from tiny_checkpoints.schedulers import FLUX_DEV, SD15
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solver_choice import solver_names
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver
from multimodal_gen.runtime.stages.request_state import RequestState
from multimodal_gen.runtime.stages.steps import Steps

_SHIFTED = {**SD15, "_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": 3.0}
_CONFIGS: dict[str, dict[str, Any]] = {
    "noise": SD15,
    "flow": FLUX_DEV,
    "shifted noise": {key: value for key, value in _SHIFTED.items() if key != "skip_prk_steps"},
    "preconditioned": {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5},
}
"""By what the model predicts: each allows other solvers."""


Made = tuple[Solver, Tensor]
"""A solver, and the noise that its request starts from."""


def solver_waits() -> dict[str, dict[str, int]]:
    """By solver and config: the waits of its steps, and of the noise that inpainting adds after
    each, by place."""
    return {
        f"{name} {way} for {predicted}": _waits(config, name, take)
        for predicted, config in _CONFIGS.items()
        for name in solver_names(config)
        for way, take in (("alone", _alone), ("together", _together))
    }


def _waits(
    config: dict[str, Any], name: str, take: Callable[[Sequence[tuple[Solver, Tensor]]], None]
) -> dict[str, int]:
    with PretendDevice() as device, torch.inference_mode():

        def make() -> tuple[Solver, Tensor]:
            generator = torch.Generator("cpu").manual_seed(0)
            schedule = Schedule(num_inference_steps=4, mu=0.5)
            options = {"name": name, "generator": generator, "device": device.device}
            solver = make_solver(config, schedule, **options)
            return solver, torch.randn(1, 4, 8, 8, generator=generator).to(device.device)

        made = [make(), make()]
        with device.watching() as seen:
            take(made)
    return dict(seen.waits)


def _alone(made: Sequence[Made]) -> None:
    solver, noise = made[0]
    latents = solver.init_noise(noise)
    for i in range(solver.num_evaluations):
        prediction = solver.scale_input(latents, i) / 3
        latents, _ = solver.step(prediction, i, latents)
        _inpaint(solver, noise, i + 1)


def _together(made: Sequence[Made]) -> None:
    """As a batch does it, from the start on."""
    states = [_state(solver, noise) for solver, noise in made]
    steps = Steps(states)
    for i in range(made[0][0].num_evaluations):
        seen, _ = steps.inputs(states, [0, 0, 1, 1])
        for estimate in steps.take(states, seen[::2] / 3):
            estimate()
        steps.measure(states)
        for solver, noise in made:
            _inpaint(solver, noise, i + 1)


def _state(solver: Solver, noise: Tensor) -> RequestState:
    state = RequestState.of(Req(id="test", params=SamplingParams(prompt="a", seed=0)))
    state.solver, state.latents = solver, solver.init_noise(noise)
    solver.weigh(0)
    return state


def _inpaint(solver: Solver, noise: Tensor, i: int) -> None:
    if i < solver.num_evaluations:
        solver.add_noise(noise / 2, noise, i)
