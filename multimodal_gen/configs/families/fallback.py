"""Runs other pipelines of diffusers that have step callbacks, with their own pipeline class.

A fallback: requests share no batch and the model runs on one rank. Parameters and defaults come
from the signature of the class's call; this table has the missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multimodal_gen.configs.families.components import encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits, TaskName


@dataclass(frozen=True, kw_only=True)
class LibraryPipeline:
    """One pipeline class of diffusers."""

    task: TaskName = "text-to-image"
    size_multiple: int = 16
    size: tuple[int, int] | None = None
    """Default width and height. None: from the call's signature, else the denoiser's training
    size."""
    fps: int | None = None


_IMAGE = LibraryPipeline()
_IMAGE_1024 = LibraryPipeline(size=(1024, 1024))
_IMAGE_32 = LibraryPipeline(size_multiple=32)
_UNET_VIDEO = LibraryPipeline(task="text-to-video", size_multiple=8, fps=8)

LIBRARY_PIPELINES: Mapping[str, LibraryPipeline] = {
    "AnimateDiffPipeline": _UNET_VIDEO,
    "AnimateDiffSDXLPipeline": _UNET_VIDEO,
    "AuraFlowPipeline": _IMAGE,
    "BriaFiboPipeline": _IMAGE_1024,
    "BriaPipeline": LibraryPipeline(size=(1024, 1024), size_multiple=32),
    "ChromaPipeline": _IMAGE_1024,
    "CogView3PlusPipeline": _IMAGE,
    "CogView4Pipeline": _IMAGE,
    "ErnieImagePipeline": _IMAGE,
    "HiDreamImagePipeline": _IMAGE_1024,
    "HunyuanDiTPipeline": _IMAGE,
    "Kandinsky3Pipeline": LibraryPipeline(size_multiple=64),
    "LatentConsistencyModelPipeline": LibraryPipeline(size_multiple=8),
    "LattePipeline": LibraryPipeline(task="text-to-video", fps=8),
    "Lumina2Pipeline": _IMAGE,
    "LuminaPipeline": _IMAGE,
    "MochiPipeline": LibraryPipeline(task="text-to-video", size=(848, 480), fps=30),
    "OvisImagePipeline": _IMAGE_1024,
    "PixArtAlphaPipeline": _IMAGE,
    "SanaSprintPipeline": _IMAGE_32,
    "SanaVideoPipeline": LibraryPipeline(task="text-to-video", size_multiple=32, fps=16),
    "SkyReelsV2Pipeline": LibraryPipeline(task="text-to-video", fps=24),
}
"""By `_class_name`. No other class of the library is run this way."""

_NO_CALLBACK = (
    "not supported: diffusers' class has no step callbacks, so requests could not report progress, "
    "be cancelled or be interrupted at a step"
)
_WITHOUT_CALLBACKS = (
    "BlipDiffusionPipeline",
    "DDIMPipeline",
    "DDPMPipeline",
    "DiTPipeline",
    "DreamLitePipeline",
    "HunyuanVideo15Pipeline",
    "I2VGenXLPipeline",
    "LDMPipeline",
    "LDMTextToImagePipeline",
    "LongCatImagePipeline",
    "UnCLIPPipeline",
    "VersatileDiffusionPipeline",
)

_COMPONENTS = {
    "tokenizer": tokenizer("BertTokenizer", "BertTokenizerFast"),
    "text_encoder": encoder(
        "BertModel",
        "GemmaModel",
        "GlmModel",
        "LlamaForCausalLM",
        "Mistral3Model",
        "SmolLM3ForCausalLM",
    ),
    "transformer": module(
        "AuraFlowTransformer2DModel",
        "BriaFiboTransformer2DModel",
        "BriaTransformer2DModel",
        "ChromaTransformer2DModel",
        "CogView3PlusTransformer2DModel",
        "CogView4Transformer2DModel",
        "ErnieImageTransformer2DModel",
        "HiDreamImageTransformer2DModel",
        "HunyuanDiT2DModel",
        "LatteTransformer3DModel",
        "Lumina2Transformer2DModel",
        "LuminaNextDiT2DModel",
        "MochiTransformer3DModel",
        "OvisImageTransformer2DModel",
        "SanaVideoTransformer3DModel",
        "SkyReelsV2Transformer3DModel",
    ),
    "unet": module("Kandinsky3UNet", "UNetMotionModel"),
    "motion_adapter": module("MotionAdapter"),
    "vae": module(
        "AsymmetricAutoencoderKL",
        "AutoencoderKLLTX2Video",
        "AutoencoderKLMochi",
        "AutoencoderTiny",
    ),
    "movq": module("VQModel"),
}
"""Components beyond those of other families; the pipeline class determines which ones it uses."""

FALLBACK = FamilyConfig(
    name="fallback",
    title="other pipelines of diffusers",
    pipeline_classes=tuple(LIBRARY_PIPELINES),
    components=_COMPONENTS,
    refused_classes=dict.fromkeys(_WITHOUT_CALLBACKS, _NO_CALLBACK),
    tasks=("text-to-image", "text-to-video"),
    parameters=("num_frames", "fps", "true_cfg_scale", "max_sequence_length"),
    size_multiple=16,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=50),
    limits=Limits(max_frames=257, max_sequence_length=4096),
    views=(),
    denoiser="fallback",
)
"""Parameters and defaults here are used where a checkpoint's own class has none."""
