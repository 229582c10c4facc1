"""Modules of diffusers and transformers from tensors, rather than from a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn

from multimodal_gen.checkpoints.tensor_info import is_float
from multimodal_gen.runtime.loader.libraries import check_keys, complaints, quiet
from multimodal_gen.runtime.loader.tensors.stored import Stored, assemble
from multimodal_gen.runtime.loader.tensors.weights import fill


def module_of(
    stored: Mapping[str, Stored],
    *,
    library: str,
    class_name: str,
    config: Mapping[str, Any],
    name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    """A module as its library would load it from a folder with these tensors. Raises
    InvalidCheckpoint; `name` is what errors call the component."""
    kind = getattr(quiet(library), class_name)
    make = _from_transformers if library == "transformers" else _from_diffusers
    module = make(kind, config, stored, name, dtype)
    return module.to(device).eval().requires_grad_(False)


def _from_diffusers(
    kind: Any,
    config: Mapping[str, Any],
    stored: Mapping[str, Stored],
    name: str,
    dtype: torch.dtype,
) -> nn.Module:
    with complaints(f"{name}: {kind.__name__}"), init_empty_weights(include_buffers=False):
        module: nn.Module = kind.from_config(dict(config))
    object.__setattr__(module, "keep_in_float32", tuple(kind._keep_in_fp32_modules or ()))
    key_map = {key: (key,) for key in module.state_dict()}
    fill(module, stored, key_map, name=name, dtype=dtype, device=torch.device("cpu"))
    return module


def _from_transformers(
    kind: Any,
    config: Mapping[str, Any],
    stored: Mapping[str, Stored],
    name: str,
    dtype: torch.dtype,
) -> nn.Module:
    state = {key: _as_stored(tensor) for key, tensor in stored.items() if is_float(tensor.dtype)}
    if "text_projection.weight" not in state and "projection_dim" in config:
        # Stable Diffusion 3 pools CLIP-L without one, and its files may leave it out.
        state |= _no_projection(kind, config)
    with complaints(f"{name}: {kind.__name__}"):
        module, info = kind.from_pretrained(
            None,
            config=kind.config_class.from_dict(dict(config)),
            state_dict=state,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_keys(name, info)
    assert isinstance(module, nn.Module)
    return module


def _as_stored(tensor: Stored) -> Tensor:
    """In the file's own precision: which parts are cast is the library's to know."""
    plain = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}
    dtype = plain.get(tensor.dtype, torch.float32)
    return assemble([tensor], torch.Size(tensor.shape), dtype, torch.device("cpu"))


def _no_projection(kind: Any, config: Mapping[str, Any]) -> dict[str, Tensor]:
    width = config.get("hidden_size")
    if not kind.__name__.endswith("WithProjection") or width != config["projection_dim"]:
        return {}
    return {"text_projection.weight": torch.eye(int(str(width)))}
