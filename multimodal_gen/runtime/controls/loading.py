"""Loads a control's network as a module of the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.controls.control import ControlDescription, ControlTarget
from multimodal_gen.runtime.loader.library_modules import LibraryModule
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.loader.single_file.conversion import convert
from multimodal_gen.runtime.loader.single_file.converters import converter_for


def load_module(
    described: ControlDescription,
    target: ControlTarget,
    class_name: str,
    config: Mapping[str, Any],
    prefix: str = "",
) -> nn.Module:
    """Load class `class_name` of diffusers from the file, whose tensors have the library's names or
    the original ones, perhaps after `prefix`. Raises InvalidCheckpoint."""
    name = described.file.name
    module = LibraryModule("diffusers", class_name, config, name)
    outline = module.outline(target.context.dtype)
    with open_weights([described.file.weights], name) as stored:
        named = {key.removeprefix(prefix): tensor for key, tensor in stored.items()}
        if not outline.state_dict().keys() & named.keys():
            named, unused = convert(named, converter_for(class_name, config), name)
            if unused:
                raise InvalidCheckpoint(f"unexpected: {', '.join(unused[:8])}")
        return module.load(named, target.context.dtype, target.context.device)
