"""Reads from a single file what its model predicts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import isfinite
from statistics import pstdev

from multimodal_gen.checkpoints.config_numbers import check_scheduler
from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo

MARKERS: Mapping[str, Mapping[str, object]] = {
    "v_pred": {"prediction_type": "v_prediction"},
    "ztsnr": {"rescale_betas_zero_snr": True},
    "edm_mean": {"_class_name": "EDMDPMSolverMultistepScheduler"},
    "edm_vpred.sigma_max": {
        "_class_name": "EDMEulerScheduler",
        "prediction_type": "v_prediction",
        "sigma_data": 1.0,
        "sigma_max": 120.0,
        "sigma_min": 0.002,
        "sigma_schedule": "exponential",
    },
}
"""Names of tensors that are only there to say it, as NoobAI (v), Playground 2.5 (edm_mean) and
CosXL have them, with settings of the scheduler."""
ZERO_TIMESTEP = "__index_timestep_zero__"
"""Marks a Qwen-Image-Edit that is told a timestep of 0 for its input images (since 2511)."""
NOTES = (*MARKERS, "edm_std", "edm_vpred.sigma_min", ZERO_TIMESTEP)
"""Tensors that no module has."""
_VALUES = {"edm_vpred.sigma_max": "sigma_max", "edm_vpred.sigma_min": "sigma_min"}
"""Settings that are a marker's own number, if it has one."""
_FORMATS = {"F64": ("d", 8), "F32": ("f", 4), "F16": ("e", 2)}
_MOST = 1 << 20  # bytes


def scheduler_settings(header: Header) -> dict[str, object]:
    """Settings of the scheduler that follow from a file's markers. Raises InvalidCheckpoint for a
    number that can't be."""
    told = (settings for marker, settings in MARKERS.items() if marker in header.tensors)
    found = {key: value for settings in told for key, value in settings.items()}
    for marker, key in _VALUES.items():
        values = _values(header, marker)
        if key in found and len(values) == 1:
            found[key] = values[0]
    check_scheduler(found, header.path.name)
    return found


def spread(header: Header, name: str) -> float | None:
    """Standard deviation of a small tensor; None if there is none, or not in a plain type."""
    values = _values(header, name)
    return pstdev(values) if values and all(map(isfinite, values)) else None


def _values(header: Header, name: str) -> list[float]:
    """Numbers of a small tensor; empty if there is none, or not in a plain type."""
    info = header.tensors.get(name)
    if info is None or not 0 < info.size <= _MOST:
        return []
    with header.path.open("rb") as file:
        file.seek(info.start)
        return _numbers(info, file.read(info.size))


def _numbers(info: TensorInfo, data: bytes) -> list[float]:
    if info.dtype == "BF16":  # the upper half of a float32
        pairs = (data[i : i + 2] for i in range(0, len(data), 2))
        data = b"".join(b"\0\0" + pair for pair in pairs)
        return [value for (value,) in struct.iter_unpack("<f", data)]
    if info.dtype not in _FORMATS:
        return []
    code, size = _FORMATS[info.dtype]
    whole = data[: len(data) // size * size]
    return [value for (value,) in struct.iter_unpack(f"<{code}", whole)]
