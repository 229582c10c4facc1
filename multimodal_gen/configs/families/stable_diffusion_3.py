"""Stable Diffusion 3 medium, 3.5 medium and 3.5 large: flow matching on two streams."""

import msgspec

from multimodal_gen.configs.families.components import (
    CLIP_TOKENIZERS,
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

_MEDIUM = BaseModel("stabilityai/stable-diffusion-3-medium-diffusers")


def _version_3_5(size: str, key: str) -> BaseModel:
    return BaseModel(f"stabilityai/stable-diffusion-3.5-{size}", {key: ()})


_SINGLE_FILES = (
    SingleFile(
        denoiser="SD3Transformer2DModel",
        style="original",
        keys=("joint_blocks.0.context_block.attn.qkv.weight", "x_embedder.proj.weight"),
        bases=(
            _version_3_5("medium", "joint_blocks.0.x_block.attn2.qkv.weight"),
            _version_3_5("large", "joint_blocks.37.x_block.attn.qkv.weight"),
            _MEDIUM,
        ),
    ),
    SingleFile(
        denoiser="SD3Transformer2DModel",
        style="diffusers",
        keys=("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"),
        bases=(
            _version_3_5("medium", "transformer_blocks.0.attn2.to_q.weight"),
            _version_3_5("large", "transformer_blocks.37.attn.to_q.weight"),
            _MEDIUM,
        ),
    ),
)

STABLE_DIFFUSION_3 = FamilyConfig(
    name="stable_diffusion_3",
    title="Stable Diffusion 3",
    pipeline_classes=(
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ),
    components={
        "tokenizer": tokenizer(*CLIP_TOKENIZERS),
        "tokenizer_2": tokenizer(*CLIP_TOKENIZERS),
        "tokenizer_3": tokenizer(*T5_TOKENIZERS, optional=True),
        "text_encoder": encoder("CLIPTextModelWithProjection"),
        "text_encoder_2": encoder("CLIPTextModelWithProjection"),
        "text_encoder_3": encoder("T5EncoderModel", optional=True),
        "transformer": native("SD3Transformer2DModel"),
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("prompt_syntax", "max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=28,
        guidance_scale=7.0,
        max_sequence_length=256,
        strength=0.6,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_sequence_length=512),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

MEDIUM_3_5_DEFAULTS = msgspec.structs.replace(
    STABLE_DIFFUSION_3.defaults, num_inference_steps=40, guidance_scale=4.5
)
"""Defaults of 3.5 medium, whose image tokens also attend to themselves."""

LARGE_3_5_DEFAULTS = msgspec.structs.replace(STABLE_DIFFUSION_3.defaults, guidance_scale=3.5)
"""Defaults of 3.5 large, which lacks that but normalises queries and keys."""
