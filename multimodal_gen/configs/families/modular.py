"""Runs diffusers' modular pipelines, block by block, with the library's own blocks.

Like the fallback, a request is evaluated alone and the model runs on one rank. Tasks, parameters
and defaults come from the blocks; this table has the missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multimodal_gen.configs.families.components import module
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
    left_out: tuple[str, ...] = ()
    """Blocks that are not run: prompts are taken as they are."""


_IMAGES = LibraryBlocks(images=4)
_FLUX3 = LibraryBlocks(images=10, left_out=("prompt_upsampler",))
_VIDEO = LibraryBlocks(size=(832, 480), num_frames=81, frames=(1, 4, 257), fps=16)
_ANIMATE = LibraryBlocks(fps=24, frames=(1, 1, 1024), num_frames=81)
_LTX = LibraryBlocks(size_multiple=32, size=(704, 512), num_frames=121, frames=(1, 8, 257), fps=24)

MODULAR_PIPELINES: Mapping[str, LibraryBlocks] = {
    "AnimaModularPipeline": LibraryBlocks(),
    "ErnieImageModularPipeline": LibraryBlocks(),
    "Flux2KleinBaseModularPipeline": _IMAGES,
    "Flux2KleinModularPipeline": _IMAGES,
    "Flux2ModularPipeline": _IMAGES,
    "Flux3DistilledModularPipeline": _FLUX3,
    "Flux3ModularPipeline": _FLUX3,
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
    "QwenImage21ModularPipeline": _IMAGES,
    "QwenImage21TurboModularPipeline": _IMAGES,
    "QwenImageEditModularPipeline": LibraryBlocks(),
    "QwenImageEditPlusModularPipeline": _IMAGES,
    "QwenImageModularPipeline": LibraryBlocks(),
    "StableDiffusion3ModularPipeline": LibraryBlocks(),
    "StableDiffusionXLModularPipeline": LibraryBlocks(size_multiple=8),
    "Wan22Image2VideoModularPipeline": _VIDEO,
    "Wan22ModularPipeline": _VIDEO,
    "WanAnimate2DistilledModularPipeline": _ANIMATE,
    "WanAnimate2ModularPipeline": _ANIMATE,
    "WanImage2VideoModularPipeline": _VIDEO,
    "WanModularPipeline": _VIDEO,
    "ZImageModularPipeline": LibraryBlocks(),
}
"""By `_class_name`. No other class of the library is run this way."""

_COMPONENTS = {
    "diffusion_decoder": module("LTX2VideoDiffusionDecoderModel"),
    "duration_head": module("LTX2DurationHead", home="ltx2"),
    "text_conditioner": module("AnimaTextConditioner"),
    "transformer": module(
        "CosmosTransformer3DModel",
        "Flux3Transformer2DModel",
        "WanAnimate2Transformer3DModel",
    ),
}
"""Components beyond those of other families; the blocks determine which ones are used."""

MODULAR = FamilyConfig(
    name="modular",
    title="modular pipelines of diffusers",
    pipeline_classes=tuple(MODULAR_PIPELINES),
    refused_classes={
        name: f"not supported: {reason}"
        for name, reason in {
            "Cosmos3DistilledModularPipeline": "its loop changes the shared transformer",
            "Cosmos3OmniModularPipeline": "its loop changes the shared transformer",
            "EchoModularPipeline": "it takes noise levels in place of a number of steps",
            "HeliosPyramidDistilledModularPipeline": "it has a number of steps for each resolution",
            "HeliosPyramidModularPipeline": "it has a number of steps for each resolution",
            "MiniMaxMusic3ModularPipeline": "it makes sound without a picture",
            "QwenImageLayeredModularPipeline": "it takes a picture apart into several",
            "Wan22VaceModularPipeline": "it takes a mask of each frame",
        }.items()
    },
    components=_COMPONENTS,
    tasks=(
        "text-to-image",
        "image-to-image",
        "image-edit",
        "text-to-video",
        "image-to-video",
    ),
    parameters=("num_frames", "fps", "max_sequence_length"),
    size_multiple=16,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=50),
    limits=Limits(max_frames=345, max_sequence_length=8192),
    views=(),
    step_caches={},
    denoiser="fallback",
)
"""Parameters and defaults here are used where a checkpoint's own blocks have none."""
