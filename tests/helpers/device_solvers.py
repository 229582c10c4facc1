"""What the pretended device sees of the steps of every solver.

Import it when the device is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from pretend_device import PretendDevice
from tiny_checkpoints.schedulers import FLUX_DEV, SD15

from multimodal_gen.configs.solver_choice import solver_names
from multimodal_gen.runtime.models.schedulers.registry import make_solver
from multimodal_gen.runtime.models.schedulers.schedule import Schedule

_SHIFTED = {**SD15, "_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": 3.0}
_CONFIGS: dict[str, dict[str, Any]] = {
    "noise": SD15,
    "flow": FLUX_DEV,
    "shifted noise": {key: value for key, value in _SHIFTED.items() if key != "skip_prk_steps"},
    "preconditioned": {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5},
}
"""By what the model predicts: each allows other solvers."""


def solver_waits() -> dict[str, dict[str, int]]:
    """By solver and config: the waits of its steps, and of the noise that inpainting adds after
    each, by place."""
    return {
        f"{name} for {predicted}": _waits(config, name)
        for predicted, config in _CONFIGS.items()
        for name in solver_names(config)
    }


def _waits(config: dict[str, Any], name: str) -> dict[str, int]:
    with PretendDevice() as device, torch.inference_mode():
        generator = torch.Generator("cpu").manual_seed(0)
        schedule = Schedule(num_inference_steps=4, mu=0.5)
        options = {"name": name, "generator": generator, "device": device.device}
        solver = make_solver(config, schedule, **options)
        noise = torch.randn(1, 4, 8, 8, generator=generator).to(device.device)
        latents = solver.init_noise(noise)
        with device.watching() as seen:
            for i in range(solver.num_evaluations):
                prediction = solver.scale_input(latents, i) / 3
                latents, _ = solver.step(prediction, i, latents)
                if i + 1 < solver.num_evaluations:
                    solver.add_noise(noise / 2, noise, i + 1)
    return dict(seen.waits)
