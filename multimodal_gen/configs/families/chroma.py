"""Chroma: FLUX.1 schnell made smaller, with guidance by a negative prompt."""

from multimodal_gen.configs.families.components import (
    T5_TOKENIZERS,
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

_APPROXIMATOR = "distilled_guidance_layer.in_proj.weight"
_BASES = (BaseModel("lodestones/Chroma1-HD"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="ChromaTransformer2DModel",
        style="original",
        keys=("double_blocks.0.img_attn.qkv.weight", _APPROXIMATOR),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="ChromaTransformer2DModel",
        style="diffusers",
        keys=("transformer_blocks.0.attn.add_q_proj.weight", _APPROXIMATOR),
        bases=_BASES,
    ),
)

CHROMA = FamilyConfig(
    name="chroma",
    title="Chroma",
    pipeline_classes=("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline"),
    components={
        "tokenizer": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("T5EncoderModel"),
        "transformer": native("ChromaTransformer2DModel"),
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=35,
        guidance_scale=5.0,
        max_sequence_length=512,
        strength=0.9,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_sequence_length=512),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)
