"""Creates readers of LoRAs and controls for pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torch import nn

from multimodal_gen.runtime.controls.control import ControlTarget
from multimodal_gen.runtime.controls.reader import ControlReader
from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


def lora_reader(pipeline: ComposedPipeline) -> LoraReader:
    """Create a reader of LoRAs for a pipeline's denoisers and text encoders."""
    modules = {name: pipeline.components[name] for name in pipeline.lora_targets}
    class_name = pipeline.family.components[pipeline.denoiser_name].classes[0]
    return LoraReader(modules, class_name, pipeline.context.device)


def control_reader(pipeline: ComposedPipeline) -> ControlReader:
    """Create a reader of controls for a pipeline's denoiser."""
    components = pipeline.components.items()
    target = ControlTarget(
        family=pipeline.family.title,
        class_name=pipeline.family.components[pipeline.denoiser_name].classes[0],
        config=_config(pipeline.denoiser_module),
        modules={name: each for name, each in components if isinstance(each, nn.Module)},
        context=pipeline.context,
    )
    return ControlReader(target)


def _config(module: nn.Module) -> Mapping[str, Any]:
    config: Any = getattr(module, "config", {})
    return asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
