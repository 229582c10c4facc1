"""Reads what the config of a component in a folder says about its quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.files import inside, read_json
from multimodal_gen.errors import InvalidCheckpoint

KEY = "quantization_config"
_BESIDE = "hf_quant_config.json"
"""File that NVIDIA's modelopt writes beside config.json, in which some checkpoints lack it."""
_MODELOPT = (
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "MIXED_PRECISION",
    "MXFP8",
    "NVFP4",
    "NVFP4_AWQ",
)
_COMPRESSED = (
    "float-quantized",
    "mixed-precision",
    "mxfp8-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
)

Settings = dict[str, Any]
"""Settings of all layers of a component; see `quantized_layers`."""


def quantization_settings(root: Path, component: str) -> Settings:
    """Settings of a component's quantised layers; empty if its config notes none.

    Raises InvalidCheckpoint for a method that is not supported.
    """
    name = f"{component}/config.json"
    config = read_json(root, name).get(KEY)
    if not config and inside(root, f"{component}/{_BESIDE}").is_file():
        name = f"{component}/{_BESIDE}"
        config = {"quant_method": "modelopt", **read_json(root, name)}
    if not config:
        return {}
    if not isinstance(config, dict):
        raise InvalidCheckpoint(f"{name}: {KEY} must be an object, not {config!s:.60}")
    method = config.get("quant_method")
    read = _METHODS.get(method) if isinstance(method, str) else None
    if read is None:
        known = ", ".join(_METHODS)
        raise InvalidCheckpoint(
            f"{name}: {KEY}: quant_method={method!r:.60} is not supported; {known} are"
        )
    return read(config, f"{name}: {KEY}")


def _modelopt(config: Mapping[str, Any], where: str) -> Settings:
    nested = config.get("quantization")
    config = {**config, **(nested if isinstance(nested, dict) else {})}
    key = next((key for key in ("quant_algo", "quant_type") if config.get(key)), "quant_algo")
    _check(where, key, config.get(key), _MODELOPT)
    return {"linear_scales": True, "high_first": config.get("swap_weight_nibbles") is True}


def _compressed_tensors(config: Mapping[str, Any], where: str) -> Settings:
    _check(where, "format", config.get("format"), _COMPRESSED)
    return {"linear_scales": True}


def _fp8(config: Mapping[str, Any], where: str) -> Settings:
    return {"linear_scales": True, "weight_block_size": config.get("weight_block_size")}


def _told_by_tensors(config: Mapping[str, Any], where: str) -> Settings:
    """The weight files tell which layers are quantised, and how."""
    return {}


_METHODS: Mapping[str, Callable[[Mapping[str, Any], str], Settings]] = {
    "modelopt": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    **dict.fromkeys(("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"), _told_by_tensors),
    "torchao": _told_by_tensors,
    "quanto": _told_by_tensors,
}


def _check(where: str, key: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidCheckpoint(
            f"{where}: {key}={value!r:.60} is not supported; {', '.join(known)} are"
        )
