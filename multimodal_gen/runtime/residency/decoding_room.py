"""The memory that encoding or decoding pixels may take."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch

from multimodal_gen.runtime.distributed.collectives import smallest
from multimodal_gen.scheduling.residency import GIGABYTE
from multimodal_gen.scheduling.working_memory import DECODING_SHARE

LEAST = 2**28
"""On a device a decode may take as much: small pictures are the same whatever its memory."""
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def decoding_room(device: torch.device, gigabytes: float | None) -> int:
    """Bytes of activations that a decode may take on every rank; what needs more is tiled.

    Pixels depend on it. So it follows from `gigabytes`, by default the memory that the device has,
    and not from what is free. Collective, if there are several ranks.
    """
    given = _total_bytes(device) if gigabytes is None else int(gigabytes * GIGABYTE)
    room = smallest(given, device) // DECODING_SHARE
    return room if device.type == "cpu" else max(LEAST, room)


def _total_bytes(device: torch.device) -> int:
    """Memory of a GPU; else that of the machine, or of the container that this runs in."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = psutil.virtual_memory().total
    for path in map(Path, _CONTAINER_LIMITS):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            total = min(total, int(path.read_text()))
    return total
