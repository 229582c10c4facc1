"""Devices that models run on, and the reasons why others are rejected."""

from __future__ import annotations

from typing import Literal

from multimodal_gen.errors import InvalidRequest

Device = Literal["auto", "cpu", "cuda"]

_ROCM = "AMD GPUs are used under the name cuda, with a ROCm build of torch; use cuda"
_REFUSED = {
    "mps": "not supported, as MPS has no float64, which rotary embeddings are computed in; use cpu",
    "rocm": _ROCM,
    "hip": _ROCM,
}


def refuse_other_devices(device: object) -> None:
    """Raise InvalidRequest, with the reason, for a device that exists but can't be used."""
    if isinstance(device, str) and device in _REFUSED:
        raise InvalidRequest("device", device, _REFUSED[device])
