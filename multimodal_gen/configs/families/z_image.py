"""Z-Image and Z-Image-Turbo, which is distilled to eight steps without guidance."""

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

_BASES = (BaseModel("Tongyi-MAI/Z-Image-Turbo"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="ZImageTransformer2DModel",
        style="original",
        keys=("layers.0.attention.qkv.weight", "layers.0.adaLN_modulation.0.weight"),
        ignored=("norm_final.weight",),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="ZImageTransformer2DModel",
        style="diffusers",
        keys=("layers.0.attention.to_q.weight", "layers.0.adaLN_modulation.0.weight"),
        bases=_BASES,
    ),
)

Z_IMAGE = FamilyConfig(
    name="z_image",
    title="Z-Image",
    pipeline_classes=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
    components={
        "tokenizer": tokenizer(*QWEN_TOKENIZERS),
        "text_encoder": encoder("Qwen3Model", "Qwen3ForCausalLM", idle=(HEAD,)),
        "transformer": native("ZImageTransformer2DModel", resident=("context_refiner",)),
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    picture_size="own",
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=8,
        guidance_scale=0.0,
        max_sequence_length=512,
        strength=0.6,
        inpainting_strength=1.0,
    ),
    limits=Limits(max_sequence_length=1024),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

BASE_DEFAULTS = msgspec.structs.replace(
    Z_IMAGE.defaults, num_inference_steps=50, guidance_scale=5.0
)
"""Defaults of checkpoints that are not distilled."""
