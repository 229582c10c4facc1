"""Settings of a component that follow from its own file, not from the folder that completes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multimodal_gen.checkpoints.file_parts import FilePart
from multimodal_gen.checkpoints.prediction import ZERO_TIMESTEP
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.original.vaes.ltx import is_original, ltx_vae_config

_LTX_SIZES = (
    "attention_head_dim",
    "caption_channels",
    "cross_attention_dim",
    "in_channels",
    "num_attention_heads",
    "num_layers",
    "out_channels",
)
"""Settings of LTX-Video's transformers that differ between versions, under diffusers' names."""


def with_own_config(
    class_name: str, config: Mapping[str, Any], header: Header, part: FilePart
) -> dict[str, Any]:
    """The config of a folder's component, with what differs in the file. Raises
    InvalidCheckpoint."""
    if class_name == "LTXVideoTransformer3DModel":
        stated = _stated(header, "transformer")
        return {**config, **{key: stated[key] for key in _LTX_SIZES if key in stated}}
    if class_name == "QwenImageTransformer2DModel":
        marked = f"{part.prefix}{ZERO_TIMESTEP}" in header.tensors
        return {**config, **({"zero_cond_t": True} if marked else {})}
    if class_name == "AutoencoderKLLTXVideo" and is_original(part.names):
        shapes = {own: header.tensors[name].shape for own, name in part.names.items()}
        try:
            return {**config, **ltx_vae_config(shapes, _stated(header, "vae"))}
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise InvalidCheckpoint(
                f"{header.path.name}: {part.title}: its blocks are not known: {error}"
            ) from error
    return dict(config)


def _stated(header: Header, component: str) -> dict[str, Any]:
    """Config of a component in a safetensors file's metadata, as Lightricks writes it."""
    try:
        config = json.loads(header.metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    stated = config.get(component) if isinstance(config, dict) else None
    return stated if isinstance(stated, dict) else {}
