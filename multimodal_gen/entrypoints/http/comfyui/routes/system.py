"""System information for clients."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import psutil

from multimodal_gen.messages.model_info import ModelInfo

PROTOCOL_VERSION = "0.3.76"
"""ComfyUI version of this protocol; clients compare it."""


def system_stats(model: ModelInfo) -> dict[str, Any]:
    """Only the host's memory is known here; on a CPU it is the device's."""
    memory = psutil.virtual_memory()
    on_cpu = model.device == "cpu"
    total, free = (memory.total, memory.available) if on_cpu else (0, 0)
    device = {
        "name": model.device,
        "type": model.device.partition(":")[0],
        "index": None if on_cpu else 0,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }
    system = {
        "os": os.name,
        "ram_total": memory.total,
        "ram_free": memory.available,
        "comfyui_version": PROTOCOL_VERSION,
        "required_frontend_version": "",
        "python_version": platform.python_version(),
        "pytorch_version": metadata.version("torch"),
        "embedded_python": False,
        "argv": [],
    }
    return {"system": system, "devices": [device]}
