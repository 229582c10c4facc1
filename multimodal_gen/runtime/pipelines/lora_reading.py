"""Creates LoRA readers for pipelines."""

from __future__ import annotations

from multimodal_gen.runtime.loader.lora.reader import LoraReader
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline


def lora_reader(pipeline: ComposedPipeline) -> LoraReader:
    """Create a reader of LoRAs for a pipeline's denoisers and text encoders."""
    modules = {name: pipeline.components[name] for name in pipeline.lora_targets}
    class_name = pipeline.family.components[pipeline.denoiser_name].classes[0]
    return LoraReader(modules, class_name, pipeline.context.device)
