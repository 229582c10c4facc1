"""Runs diffusers' modular pipelines, block by block, with the library's own blocks.

Like the fallback, a request is evaluated alone and the model runs on one rank. Tasks, parameters
and defaults come from the blocks; this table has the missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multimodal_gen.configs.families.components import encoder, module
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits


@dataclass(frozen=True, kw_only=True)
class LibraryBlocks:
    """One pipeline class of diffusers that is made of blocks."""

    size_multiple: int = 16
    size: tuple[int, int] = (1024, 1024)
    """Default width and height, if the blocks have none."""
    num_frames: int = 1
    """Default, if the blocks have none."""
    frames: tuple[int, int, int] = (1, 1, 257)
    """Numbers of frames that it makes: the smallest, the distance to the next, and the largest."""
    fps: int | None = None
    images: int = 1
    """Maximum number of input images."""


_IMAGES = LibraryBlocks(images=4)
_VIDEO = LibraryBlocks(size=(832, 480), num_frames=81, frames=(1, 4, 257), fps=16)
_LTX = LibraryBlocks(size_multiple=32, size=(704, 512), num_frames=121, frames=(1, 8, 257), fps=24)

MODULAR_PIPELINES: Mapping[str, LibraryBlocks] = {
    "AnimaModularPipeline": LibraryBlocks(),
    "ErnieImageModularPipeline": LibraryBlocks(),
    "Flux2KleinBaseModularPipeline": _IMAGES,
    "Flux2KleinModularPipeline": _IMAGES,
    "Flux2ModularPipeline": _IMAGES,
    "Flux3DistilledModularPipeline": _IMAGES,
    "Flux3ModularPipeline": _IMAGES,
    "FluxKontextModularPipeline": LibraryBlocks(),
    "FluxModularPipeline": LibraryBlocks(),
    "HeliosModularPipeline": _VIDEO,
    "HunyuanVideo15ModularPipeline": LibraryBlocks(
        size=(848, 480), num_frames=121, frames=(1, 4, 257), fps=24
    ),
    "Ideogram4ModularPipeline": LibraryBlocks(),
    "Krea2ModularPipeline": LibraryBlocks(),
    "Krea2TurboModularPipeline": LibraryBlocks(),
    "LTX25ModularPipeline": _LTX,
    "LTX2ModularPipeline": _LTX,
    "LTXModularPipeline": _LTX,
    "MiniMaxH3ModularPipeline": LibraryBlocks(
        size_multiple=32,
        size=(1344, 768),
        num_frames=124,
        frames=(124, 17, 345),
        fps=24,
        images=9,
    ),
    "QwenImage21ModularPipeline": _IMAGES,
    "QwenImage21TurboModularPipeline": _IMAGES,
    "QwenImageEditModularPipeline": LibraryBlocks(),
    "QwenImageEditPlusModularPipeline": _IMAGES,
    "QwenImageModularPipeline": LibraryBlocks(),
    "StableDiffusion3ModularPipeline": LibraryBlocks(),
    "StableDiffusionXLModularPipeline": LibraryBlocks(size_multiple=8),
    "Wan22Image2VideoModularPipeline": _VIDEO,
    "Wan22ModularPipeline": _VIDEO,
    "WanImage2VideoModularPipeline": _VIDEO,
    "WanModularPipeline": _VIDEO,
    "ZImageModularPipeline": LibraryBlocks(),
}
"""By `_class_name`. No other class of the library is run this way."""

_COMPONENTS = {
    "text_encoder": encoder("Qwen3_5ForConditionalGeneration"),
    "text_conditioner": module("AnimaTextConditioner"),
    "transformer": module(
        "CosmosTransformer3DModel",
        "Flux3Transformer2DModel",
        "MiniMaxH3Transformer3DModel",
        "WanAnimate2Transformer3DModel",
    ),
    "vae": module("AutoencoderKLMiniMaxH3"),
    "audio_vae": module("AutoencoderKLMiniMaxH3Audio"),
}
"""Components beyond those of other families; the blocks determine which ones are used."""

MODULAR = FamilyConfig(
    name="modular",
    title="modular pipelines of diffusers",
    pipeline_classes=tuple(MODULAR_PIPELINES),
    refused_classes={
        "MiniMaxMusic3ModularPipeline": "not supported: it makes sound without a picture",
    },
    components=_COMPONENTS,
    tasks=(
        "text-to-image",
        "image-to-image",
        "image-edit",
        "text-to-video",
        "image-to-video",
        "reference-to-video",
    ),
    parameters=("num_frames", "fps", "max_sequence_length"),
    size_multiple=16,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=50),
    limits=Limits(max_frames=345, max_sequence_length=8192),
    views=(),
    denoiser="fallback",
)
"""Parameters and defaults here are used where a checkpoint's own blocks have none."""
