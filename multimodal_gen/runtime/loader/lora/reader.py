"""Reads a LoRA and maps it to the modules of a pipeline."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_gen.checkpoints.files import read_json
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.lora_folder import LoraFile
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import Lora, LowRank
from multimodal_gen.runtime.layers.lora_hooks import HOOKABLE
from multimodal_gen.runtime.loader.lora.layouts import (
    LoraConverter,
    Names,
    Pair,
    Pairs,
    pairs_of,
    refused,
    scaled_by,
)
from multimodal_gen.runtime.loader.pretrained import complaints
from multimodal_gen.runtime.loader.tensors.safetensors_copy import copy_safetensors

_MAX_BYTES = 8 << 30
_LOW_NOISE = re.compile("low[-_ ]?noise", re.IGNORECASE)
"""File name of a LoRA for the second of two denoisers, which its keys don't show."""
_SHOWN = 8
_METADATA = "lora_adapter_metadata"
"""Metadata key where diffusers stores PEFT's config, with the component before each key."""


class Target(NamedTuple):
    """Where a LoRA for one of diffusers' modules applies: a module, or some of its channels."""

    module: nn.Module
    start: int
    shape: tuple[int, ...]
    """Shape of the checkpoint's weight for it."""


class LoraReader:
    """Reads LoRAs for the modules of one pipeline; thread-safe."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        converter: LoraConverter | None,
        device: torch.device,
    ) -> None:
        """`modules`: components that support LoRA, by name, the denoiser first."""
        self._denoisers = [name for name in modules if not name.startswith("text_encoder")]
        self._targets = {name: dict(_targets(module)) for name, module in modules.items()}
        self._names = Names(self._targets)
        self._converter = converter
        self._device = device

    def read(self, file: LoraFile) -> Lora:
        """Read a LoRA. Raises InvalidRequest, which says what is wrong or does not match."""
        try:
            with complaints(file.weights.name):
                pairs = self._read(file)
        except InvalidCheckpoint as error:
            raise InvalidRequest("lora", file.name, error.message) from error
        return self._fitted(pairs)

    def _read(self, file: LoraFile) -> Pairs:
        tensors, metadata = _load(file.weights)
        if what := refused(tensors):
            raise InvalidCheckpoint(f"has {what}, but only LoRA is supported")
        config = _peft_config(file.config)
        pairs, unknown = pairs_of(tensors, self._names, self._converter)
        if _LOW_NOISE.search(f"{file.name}/{file.weights.name}"):
            pairs = self._for_second(pairs)
        shown = {key for key in unknown if not key.endswith(".alpha")} or unknown
        problems = [f"{key} {_shape(unknown[key])}: no such module" for key in sorted(shown)]
        configs = dict.fromkeys(self._targets, config) if config else _by_component(metadata)
        scaled_by(pairs, configs)
        problems += self._misfits(pairs)
        if problems:
            more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise InvalidCheckpoint(
                "does not match the model: " + "; ".join(problems[:_SHOWN]) + more
            )
        if not pairs:
            raise InvalidCheckpoint("has no weights")
        return pairs

    def _for_second(self, pairs: Pairs) -> Pairs:
        """Move the first denoiser's pairs to the last one, if there are two."""
        first, last = self._denoisers[0], self._denoisers[-1]
        return {(last if part == first else part, name): p for (part, name), p in pairs.items()}

    def _misfits(self, pairs: Pairs) -> Iterator[str]:
        for (component, name), pair in sorted(pairs.items(), key=lambda item: item[0]):
            target = self._targets[component][name]
            if not _fits(pair, target):
                found = f"down {_shape(pair.down)}, up {_shape(pair.up)}"
                yield f"{component}.{name}: {found}, the model has {list(target.shape)}"

    def _fitted(self, pairs: Pairs) -> Lora:
        parts: defaultdict[nn.Module, list[LowRank]] = defaultdict(list)
        for (component, name), pair in pairs.items():
            target = self._targets[component][name]
            parts[target.module].append(_low_rank(pair, target, self._device))
        beside = any(component not in self._denoisers for component, _ in pairs)
        return Lora(dict(parts), of_encoders=beside)


def _targets(root: nn.Module) -> Iterator[tuple[str, Target]]:
    """Targets by diffusers' name; one of our layers may combine several in one weight."""
    for name, module in root.named_modules():
        if isinstance(module, Linear):
            for segment in module.segments:
                theirs, shape = segment.name.removesuffix(".weight"), module.weight.shape[1:]
                yield theirs, Target(module, segment.start, (segment.rows, *shape))
        elif isinstance(module, HOOKABLE) and getattr(module, "groups", 1) == 1:
            assert isinstance(module.weight, Tensor)
            yield name, Target(module, 0, tuple(module.weight.shape))


def _load(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Read tensors and metadata as a copy in memory, since operators may overwrite their files."""
    header = read_header(path)
    if header.format != "safetensors":
        raise InvalidCheckpoint(f"{path.name}: must be safetensors, is {header.format}")
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidCheckpoint(
            f"{path.name}: larger than {_MAX_BYTES >> 30} GiB; is it a checkpoint?"
        )
    return copy_safetensors(header), header.metadata


def _peft_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    config = read_json(path.parent, path.name)
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("use_dora"):
        raise InvalidCheckpoint(f"{path.name}: is {kind} or DoRA; only LoRA is supported")
    return config


def _by_component(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    configs: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in json.loads(metadata.get(_METADATA) or "{}").items():
        component, _, name = key.partition(".")
        configs[component][name] = value
    return configs


def _fits(pair: Pair, target: Target) -> bool:
    if pair.down is None or pair.up is None:
        return False
    rank, channels = len(pair.down), target.shape[0]
    kernel = [1] * (len(target.shape) - 2)
    return (
        rank > 0
        and list(pair.down.shape) == [rank, *target.shape[1:]]
        and list(pair.up.shape) == [channels, rank, *kernel]
        and (pair.bias is None or list(pair.bias.shape) == [channels])
    )


def _low_rank(pair: Pair, target: Target, device: torch.device) -> LowRank:
    assert pair.down is not None
    assert pair.up is not None
    rank = len(pair.down)
    dtype = target.module.weight.dtype
    assert isinstance(dtype, torch.dtype)
    return LowRank(
        down=pair.down.to(device, dtype),
        up=pair.up.to(device, dtype).contiguous(),
        bias=None if pair.bias is None else pair.bias.to(device, dtype),
        scale=1.0 if pair.alpha is None else pair.alpha / rank,
        start=target.start,
    )


def _shape(tensor: Any) -> str:
    return "missing" if tensor is None else str(list(getattr(tensor, "shape", ())))
