"""Random LoRAs for tiny checkpoints, in the layouts that people have them in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.runtime.layers.lora import LoraUse
from multimodal_gen.runtime.pipelines.adapter_readers import lora_reader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

Weights = dict[str, tuple[Tensor, Tensor]]
"""down and up, by the module's name."""


def random_lora(module: nn.Module, wanted: str, *, rank: int = 4, seed: int = 0) -> Weights:
    """For each linear and convolution whose name has one of the words in `wanted`."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d) or not any(
            w in name for w in wanted.split()
        ):
            continue
        out, *into = part.weight.shape
        kernel = [1] * (len(into) - 1)
        down = torch.randn(rank, *into, generator=generator)
        up = torch.randn(out, rank, *kernel, generator=generator)
        fan_in = down[0].numel()
        found[name] = (0.5 * down / fan_in**0.5, up / rank**0.5)
    assert found
    return found


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


def diffusers_keys(prefix: str, weights: Weights) -> dict[str, Tensor]:
    """As diffusers saves them today."""
    return _keys(weights, f"{prefix}.{{}}.lora_A.weight", f"{prefix}.{{}}.lora_B.weight")


def kohya_keys(prefix: str, weights: Weights, alpha: float = 2.0) -> dict[str, Tensor]:
    """`lora_unet_down_blocks_0_…`, each module with an alpha."""
    names = {name: f"{prefix}_{name.replace('.', '_')}" for name in weights}
    renamed = {names[name]: pair for name, pair in weights.items()}
    keys = _keys(renamed, "{}.lora_down.weight", "{}.lora_up.weight")
    return keys | {f"{name}.alpha": torch.tensor(alpha) for name in renamed}


def peft_folder(folder: Path, weights: Weights, **config: Any) -> None:
    """As PEFT's `save_pretrained` leaves it."""
    prefix = "base_model.model."
    write(
        folder / "adapter_model.safetensors",
        _keys(weights, prefix + "{}.lora_A.weight", prefix + "{}.lora_B.weight"),
    )
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))


def _keys(weights: Weights, down: str, up: str) -> dict[str, Tensor]:
    keys = {}
    for name, (a, b) in weights.items():
        keys |= {down.format(name): a, up.format(name): b}
    return keys


_numbers = itertools.count()


class LoadedLoras:
    """Adds LoRAs of a folder to a pipeline, without an engine; each gets a key."""

    def __init__(self, pipeline: ComposedPipeline, folder: Path) -> None:
        self._pipeline = pipeline
        self._reader = lora_reader(pipeline)
        self._folder = LoraFolder(folder)
        self._keys: dict[str, int] = {}

    def use(self, name: str, scale: float = 1.0) -> LoraUse:
        if name not in self._keys:
            key = self._keys[name] = next(_numbers)
            self._pipeline.loras.add(key, self._reader.read(self._folder.find(name)))
        return LoraUse(key=self._keys[name], scale=scale)
