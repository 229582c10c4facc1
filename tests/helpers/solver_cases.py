"""Every solver with every kind of checkpoint, and diffusers' loops of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.solver_choice import solver_names
from multimodal_gen.configs.solvers import SOLVERS, View
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule
from multimodal_gen.runtime.models.schedulers.solver import Solver

_LATENT_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
_DYNAMIC_SHIFT = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": True,
}
FLOW_EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
_FLOW_SIGMAS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd15": {"_class_name": "PNDMScheduler", **_LATENT_DIFFUSION},
    "sdxl": {
        "_class_name": "EulerDiscreteScheduler",
        **_LATENT_DIFFUSION,
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    "sd21-v": {
        "_class_name": "DDIMScheduler",
        **_LATENT_DIFFUSION,
        "prediction_type": "v_prediction",
    },
    "schnell": {**FLOW_EULER, **_DYNAMIC_SHIFT, "shift": 1.0, "use_dynamic_shifting": False},
    "dev": {**FLOW_EULER, **_DYNAMIC_SHIFT, "shift": 3.0},
    "wan": {
        "_class_name": "UniPCMultistepScheduler",
        "num_train_timesteps": 1000,
        **_FLOW_SIGMAS,
        "flow_shift": 3.0,
    },
    "sana": {
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 1000,
        **_FLOW_SIGMAS,
        "flow_shift": 3.0,
    },
    "cogvideox": {
        "_class_name": "CogVideoXDDIMScheduler",
        **_LATENT_DIFFUSION,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
CASES = [(model, name) for model, config in CONFIGS.items() for name in solver_names(config)]
STEPS = 12
MU = 0.83  # of the dynamic shift
SHAPE = (1, 36, 8)
CPU = torch.device("cpu")


def flow_schedule(model: str) -> dict[str, Any]:
    """Return what the FLUX family gives; other pipelines leave the schedule to the solver."""
    if model not in ("schnell", "dev"):
        return {}
    return {"sigmas": np.linspace(1.0, 1 / STEPS, STEPS).tolist(), "mu": MU}


def solver_of(
    model: str, name: str | None, seed: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Solver, Tensor]:
    """A solver and its starting latents, both from one generator."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHAPE, generator=generator).to(dtype)
    solver = make_solver(
        CONFIGS[model],
        Schedule(num_inference_steps=STEPS, **flow_schedule(model)),
        name=name,
        generator=generator,
        device=CPU,
    )
    return solver, solver.init_noise(noise)


def solver_from(config: Mapping[str, Any], seed: int = 0, **options: Any) -> Solver:
    name, schedule = options.pop("name", None), Schedule(**{"num_inference_steps": 4, **options})
    generator = torch.Generator().manual_seed(seed)
    return make_solver(config, schedule, name=name, generator=generator, device=CPU)


def toy_model(seen: Tensor, timestep: Tensor) -> Tensor:
    """Depends on everything that a real model depends on; computes in the input's dtype."""
    return torch.tanh(0.8 * seen + (timestep.float() / 1000).to(seen.dtype)) - 0.3 * seen


def evaluate(solver: Solver, i: int, latents: Tensor) -> Tensor:
    prediction = toy_model(solver.scale_input(latents, i), solver.timesteps[i])
    return solver.step(prediction, i, latents)[0]


def run(solver: Solver, latents: Tensor) -> Tensor:
    for i in range(solver.num_evaluations):
        latents = evaluate(solver, i, latents)
    return latents


def diffusers_scheduler(model: str, name: str) -> Any:
    """Return what `X.from_config(pipe.scheduler.config)` gives, with the pipeline's timesteps."""
    config, spec = CONFIGS[model], SOLVERS[name]
    shift = config.get("shift", config.get("flow_shift"))
    extra: dict[str, Any] = {**spec.views.get(View.NOISE, {})}
    if name == "unipc" and shift is not None:
        extra = {**_FLOW_SIGMAS, "flow_shift": shift}
    elif name.startswith("flow_"):
        extra = {"shift": shift}
    scheduler = getattr(diffusers, spec.scheduler).from_config(config, **extra)
    given = flow_schedule(model)
    accepted = inspect.signature(scheduler.set_timesteps).parameters
    if "sigmas" in given and "sigmas" in accepted and not scheduler.config.get("use_flow_sigmas"):
        scheduler.set_timesteps(sigmas=given["sigmas"], mu=given["mu"], device=CPU)
    elif "mu" in given and "mu" in accepted:
        scheduler.set_timesteps(STEPS, mu=given["mu"], device=CPU)
    else:
        scheduler.set_timesteps(STEPS, device=CPU)
    return scheduler


def diffusers_loop(model: str, name: str, dtype: torch.dtype, seed: int = 5) -> Tensor:
    """The denoising loop of diffusers' pipelines."""
    scheduler = diffusers_scheduler(model, name)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(SHAPE, generator=generator).to(dtype)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    accepted = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": generator} if "generator" in accepted else {}
    options |= {"eta": 0.0} if "eta" in accepted else {}  # what pipelines give
    x0 = before = None
    for timestep in scheduler.timesteps:
        seen = latents
        if hasattr(scheduler, "scale_model_input"):
            seen = scheduler.scale_model_input(latents, timestep)
        prediction = toy_model(seen, timestep)
        given: tuple[Any, ...] = (timestep, latents)
        if "timestep_back" in accepted:  # CogVideoX's has no memory of its own
            given = (x0, timestep, before, latents)
        latents, *rest = scheduler.step(prediction, *given, **options, return_dict=False)
        x0, before = (rest[0] if rest else None), timestep
    return latents
