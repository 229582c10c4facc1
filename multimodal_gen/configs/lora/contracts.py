"""Sampling parameters that published LoRAs for few steps were made for, by their names.

Each row names where its authors say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_STEPS = re.compile(r"(?<![0-9.])([0-9]{1,2})-?steps?\b")
_NO_GUIDANCE = {"guidance_scale": 1.0}


@dataclass(frozen=True)
class LoraContract:
    """Sampling parameters that a LoRA was made for."""

    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    scale: float = 1.0

    def __str__(self) -> str:
        own = [f"{name}={value}" for name, value in self.parameters.items()]
        return ", ".join([*own, *([] if self.scale == 1 else [f"scale={self.scale}"])])


@dataclass(frozen=True)
class _Row:
    pattern: str
    steps: int
    """Where the name says none."""
    parameters: Mapping[str, Any]
    scale: float = 1.0


_TURBO_LEVELS = (1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031)
_WITHOUT_LTX_GUIDANCE = {
    **_NO_GUIDANCE,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
}
_ROWS = (
    # github.com/ModelTC/Qwen-Image-Lightning, README and its script for diffusers
    _Row(r"qwen.*lightning|lightning.*qwen", 8, {"true_cfg_scale": 1.0, "flow_shift": 3.0}),
    # github.com/ModelTC/LightX2V, configs/distill: sample_shift 5 and enable_cfg false
    _Row(r"lightx2v|wan.*lightning|lightning.*wan", 4, {**_NO_GUIDANCE, "flow_shift": 5.0}),
    # huggingface.co/ByteDance/SDXL-Lightning
    _Row(
        r"sdxl-?lightning|lightning.*sdxl",
        4,
        {**_NO_GUIDANCE, "scheduler": "euler", "timestep_spacing": "trailing"},
    ),
    # huggingface.co/ByteDance/Hyper-SD, with a setting for each model
    _Row(r"hyper-?flux", 8, {"guidance_scale": 3.5}, scale=0.125),
    _Row(r"hyper-?sd-?3.*\b4-?step", 4, {"guidance_scale": 3.0}, scale=0.125),
    _Row(r"hyper-?sd-?3.*\b16-?step", 16, {"guidance_scale": 7.0}, scale=0.125),
    _Row(r"hyper-?sd-?3", 8, {"guidance_scale": 5.0}, scale=0.125),
    _Row(
        r"hyper-?sd.*cfg",
        8,
        {"guidance_scale": 5.0, "scheduler": "ddim", "timestep_spacing": "trailing"},
    ),
    _Row(r"hyper-?sd.*\b1-?step", 1, {**_NO_GUIDANCE, "scheduler": "tcd"}),
    _Row(
        r"hyper-?sd",
        8,
        {**_NO_GUIDANCE, "scheduler": "ddim", "timestep_spacing": "trailing"},
    ),
    # huggingface.co/alimama-creative/FLUX.1-Turbo-Alpha
    _Row(r"flux.*turbo-alpha", 8, {"guidance_scale": 3.5}),
    # huggingface.co/fal/FLUX.2-dev-Turbo
    _Row(r"flux-?\.?2.*turbo", 8, {"guidance_scale": 2.5, "sigmas": _TURBO_LEVELS}),
    # huggingface.co/blog/lcm_lora
    _Row(r"\blcm-?lora|\blora-lcm", 4, {**_NO_GUIDANCE, "scheduler": "lcm"}),
    # github.com/jabir-zheng/TCD
    _Row(r"\btcd-?lora|sd(xl|15|21.*)-tcd|\btcd-sd", 4, {**_NO_GUIDANCE, "scheduler": "tcd"}),
    # github.com/tianweiy/DMD2, whose timesteps differ by up to 20 from those of this solver
    _Row(r"\bdmd2\b", 4, {**_NO_GUIDANCE, "scheduler": "lcm"}),
    # github.com/Lightricks/LTX-2, whose noise levels for it are the distilled checkpoint's
    _Row(r"\bltx.*distilled", 8, _WITHOUT_LTX_GUIDANCE),
)
"""The first whose pattern is found counts; names are in lower case, their words joined by `-`."""


def contract_of(*names: str) -> LoraContract | None:
    """Contract of a LoRA by the first of its names that is known; None for one of no special
    kind."""
    for name in names:
        plain = re.sub(r"[^a-z0-9.]+", "-", name[:200].lower())
        row = next((row for row in _ROWS if re.search(row.pattern, plain)), None)
        if row is not None:
            said = _STEPS.search(plain)
            steps = int(said[1]) if said else row.steps
            return LoraContract({"num_inference_steps": steps, **row.parameters}, row.scale)
    return None
