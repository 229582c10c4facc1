"""Sampling parameters that published LoRAs for few steps were made for, by their names.

Taken from the model cards of their authors.
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


_ROWS = (
    _Row(r"qwen.*lightning|lightning.*qwen", 8, {"true_cfg_scale": 1.0, "flow_shift": 3.0}),
    _Row(r"lightx2v|wan.*lightning|lightning.*wan", 4, {**_NO_GUIDANCE, "flow_shift": 5.0}),
    _Row(
        r"sdxl-?lightning|lightning.*sdxl",
        4,
        {**_NO_GUIDANCE, "scheduler": "euler", "timestep_spacing": "trailing"},
    ),
    _Row(r"hyper-?flux", 8, {"guidance_scale": 3.5}, scale=0.125),
    _Row(r"hyper-?sd.*cfg", 8, {"guidance_scale": 5.0, "timestep_spacing": "trailing"}),
    _Row(r"hyper-?sd.*\b1-?step", 1, {**_NO_GUIDANCE, "scheduler": "tcd"}),
    _Row(
        r"hyper-?sd",
        8,
        {**_NO_GUIDANCE, "scheduler": "ddim", "timestep_spacing": "trailing"},
    ),
    _Row(r"flux.*turbo-alpha", 8, {"guidance_scale": 3.5}),
    _Row(r"\blcm-?lora|\blora-lcm", 4, {**_NO_GUIDANCE, "scheduler": "lcm"}),
    _Row(r"\btcd-?lora|sd(xl|15)-tcd", 4, {**_NO_GUIDANCE, "scheduler": "tcd"}),
    _Row(r"\bdmd2\b", 4, {**_NO_GUIDANCE, "scheduler": "lcm"}),
    _Row(r"\bltx.*distilled", 8, _NO_GUIDANCE),
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
