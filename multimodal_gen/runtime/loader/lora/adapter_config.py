"""Reads PEFT's config of a LoRA, from its own file or from the metadata of the weights."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.files import read_json
from multimodal_gen.errors import InvalidCheckpoint

_METADATA = "lora_adapter_metadata"
"""Metadata key where diffusers stores the config, with the component before each key."""
_KINDS = ("LORA", "LOHA", "LOKR")
_RESIDUAL = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Ways to start training that take the first low-rank weights out of the model's."""


def adapter_config(path: Path | None) -> dict[str, Any]:
    """Read adapter_config.json; empty if there is none. Raises InvalidCheckpoint."""
    if path is None:
        return {}
    config = read_json(path.parent, path.name)
    _check(config, path.name)
    return config


def configs_in(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Configs in the metadata of a file, by component. Raises InvalidCheckpoint."""
    configs: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in _packed(metadata.get(_METADATA) or "{}").items():
        component, dot, name = key.partition(".")
        if dot:
            configs[component][name] = value
    for component, config in configs.items():
        _check(config, f"{_METADATA}: {component}")
    return configs


def alpha_in(metadata: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """Config with the alpha that an entry of the metadata has for all modules; empty if there is
    none. Raises InvalidCheckpoint."""
    given = metadata.get(entry)
    if given is None:
        return {}
    try:
        config = {"lora_alpha": float(given)}
    except ValueError as error:
        raise InvalidCheckpoint(f"metadata: {entry}={given!r:.60} must be a number") from error
    _check(config, "metadata")
    return config


def _packed(content: str) -> dict[str, Any]:
    try:
        packed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{_METADATA}: not valid JSON: {error}") from error
    if not isinstance(packed, dict):
        raise InvalidCheckpoint(f"{_METADATA}: must be a JSON object")
    return packed


def _check(config: Mapping[str, Any], where: str) -> None:
    """Raise InvalidCheckpoint for what would give another strength, or other weights."""
    kind = config.get("peft_type", "LORA")
    if kind not in _KINDS:
        allowed = "only LoRA, LoHa and LoKr are supported"
        raise InvalidCheckpoint(f"{where}: is {kind!s:.60}; {allowed}")
    numbers = {key: config[key] for key in ("r", "alpha", "lora_alpha") if key in config}
    for name in ("alpha_pattern", "rank_pattern"):
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            raise InvalidCheckpoint(f"{where}: {name}={patterns!r:.60} must be an object")
        numbers |= patterns
    for key, number in numbers.items():
        if not _is_finite(number):
            raise InvalidCheckpoint(f"{where}: {key:.100}={number!r:.60} must be a finite number")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_RESIDUAL):
        raise InvalidCheckpoint(
            f"{where}: init_lora_weights={start!r:.60} belongs to changed weights of the model; "
            "save it with PEFT's path_initial_model_for_weight_conversion"
        )


def _is_finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
