"""The operator's folder of LoRAs, addressed by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from multimodal_gen.checkpoints.adapter_folder import AdapterFile, AdapterFolder
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.lora.about import LoraAbout
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest

PEFT_CONFIG = "adapter_config.json"
_REMEMBERED = 1000
"""Files whose metadata are remembered."""


class LoraFolder(AdapterFolder):
    """LoRAs, some with PEFT's config file."""

    field = "lora"
    config = PEFT_CONFIG
    preferred = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")

    def about(self, name: str) -> LoraAbout:
        """Read the claims of a LoRA's file about itself; nothing if there is none."""
        try:
            return about_of(self.find(name))
        except InvalidRequest:
            return LoraAbout()


def about_of(file: AdapterFile) -> LoraAbout:
    """Read the file's claims about itself; nothing if it can't be read."""
    try:
        return _about_at(file.weights, file.stamp)
    except (OSError, InvalidCheckpoint):
        return LoraAbout()


@lru_cache(_REMEMBERED)
def _about_at(path: Path, stamp: str) -> LoraAbout:
    """Remembered while the file is the same. Raises OSError, InvalidCheckpoint."""
    return LoraAbout.of(read_header(path).metadata)
