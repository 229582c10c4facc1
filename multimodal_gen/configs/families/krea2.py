"""Krea 2, and Krea 2 Turbo, which is distilled to eight steps without guidance."""

import msgspec

from multimodal_gen.configs.families.components import (
    HEAD,
    QWEN_TOKENIZERS,
    encoder,
    module,
    native,
    tokenizer,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("krea/Krea-2-Raw"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="Krea2Transformer2DModel",
        style="original",
        keys=("txtfusion.projector.weight", "blocks.0.attn.wq.weight"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="Krea2Transformer2DModel",
        style="diffusers",
        keys=("text_fusion.projector.weight", "transformer_blocks.0.attn.to_gate.weight"),
        bases=_BASES,
    ),
)

KREA2 = FamilyConfig(
    name="krea2",
    title="Krea 2",
    pipeline_classes=("Krea2Pipeline",),
    components={
        "tokenizer": tokenizer(*QWEN_TOKENIZERS),
        "text_encoder": encoder(
            "Qwen3VLModel",
            "Qwen3VLForConditionalGeneration",
            idle=(HEAD, "visual", "model.visual"),
        ),
        "transformer": native("Krea2Transformer2DModel"),
        "vae": module("AutoencoderKLQwenImage"),
    },
    tasks=("text-to-image",),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=28,
        guidance_scale=4.5,
        max_sequence_length=512,
    ),
    limits=Limits(max_sequence_length=1024),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

DISTILLED_DEFAULTS = msgspec.structs.replace(
    KREA2.defaults, num_inference_steps=8, guidance_scale=0.0
)
"""Defaults of checkpoints that say `is_distilled`."""
