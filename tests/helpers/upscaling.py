"""Tiny models that enlarge pictures, and spandrel or what stands for it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from places import HELPERS, python_path
from safetensors.torch import load_file, save_file

DOUBLE = HELPERS / "spandrel_double"
INSTALLED = importlib.util.find_spec("spandrel") is not None
WIDTH, GROWN = 8, 32


def library_path() -> str:
    """PYTHONPATH of an engine that finds spandrel."""
    return python_path(*([] if INSTALLED else [DOUBLE]))


def save_esrgan(file: Path, seed: int = 0) -> Path:
    """An ESRGAN that enlarges by 4, of one block and random weights."""
    draw = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def add(name: str, inputs: int, outputs: int) -> None:
        weight = torch.randn(outputs, inputs, 3, 3, generator=draw)
        tensors[f"{name}.weight"] = weight * (inputs * 9) ** -0.5
        tensors[f"{name}.bias"] = torch.rand(outputs, generator=draw) * 0.2

    add("conv_first", 3, WIDTH)
    for dense in (1, 2, 3):
        for number in range(5):
            grown = WIDTH if number == 4 else GROWN
            add(f"body.0.rdb{dense}.conv{number + 1}", WIDTH + number * GROWN, grown)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        add(name, WIDTH, WIDTH)
    add("conv_last", WIDTH, 3)
    save_file(tensors, file)
    return file


def enlarged(file: Path, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What spandrel's own model makes of whole pictures [F, H, W, 3] uint8."""
    spandrel = importlib.import_module("spandrel")
    model = spandrel.MAIN_REGISTRY.load(load_file(file)).eval()
    frames = [torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() for frame in pixels]
    made = [(model(frame / 255)[0].permute(1, 2, 0) * 255).round() for frame in frames]
    return torch.stack(made).to(torch.uint8).numpy()
