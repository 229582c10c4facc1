"""Gets diffusers' LoRA layout converters for a family's pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from multimodal_gen.runtime.loader.lora.layouts import LoraConverter


def lora_converter(
    pipeline_classes: Sequence[str], unet_config: Any = None
) -> LoraConverter | None:
    """Converter of the first of diffusers' classes that has one. It may raise any exception.

    `unet_config` distinguishes the blocks of a UNet.
    """
    import diffusers

    for name in pipeline_classes:
        kind = getattr(diffusers, name, None)
        if hasattr(kind, "lora_state_dict"):
            return _converter(kind, unet_config)
    return None


def _converter(kind: Any, unet_config: Any) -> LoraConverter:
    options: dict[str, Any] = {} if unet_config is None else {"unet_config": unet_config}
    if "return_alphas" in inspect.signature(kind.lora_state_dict).parameters:
        options["return_alphas"] = True

    def convert(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        found = kind.lora_state_dict(tensors, **options)
        state, alphas = found if isinstance(found, tuple) else (found, None)
        return state, alphas or {}

    return convert
