"""FLUX.1: dev (guidance is an input of the model) and schnell (distilled to four steps)."""

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

_SCHNELL = BaseModel("black-forest-labs/FLUX.1-schnell")


def _dev(guidance: str) -> BaseModel:
    return BaseModel("black-forest-labs/FLUX.1-dev", {guidance: ()})


_SINGLE_FILES = (
    SingleFile(
        denoiser="FluxTransformer2DModel",
        style="original",
        keys=("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight"),
        bases=(_dev("guidance_in.in_layer.weight"), _SCHNELL),
    ),
    SingleFile(
        denoiser="FluxTransformer2DModel",
        style="diffusers",
        keys=(
            "transformer_blocks.0.attn.add_q_proj.weight",
            "single_transformer_blocks.0.proj_mlp.weight",
            "context_embedder.weight",
        ),
        without=("distilled_guidance_layer.in_proj.weight",),
        bases=(_dev("time_text_embed.guidance_embedder.linear_1.weight"), _SCHNELL),
    ),
)

FLUX = FamilyConfig(
    name="flux",
    title="FLUX.1",
    pipeline_classes=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    components={
        "tokenizer": tokenizer(*CLIP_TOKENIZERS),
        "tokenizer_2": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("CLIPTextModel"),
        "text_encoder_2": encoder("T5EncoderModel"),
        "transformer": native("FluxTransformer2DModel"),
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("prompt_syntax", "true_cfg_scale", "max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=28,
        guidance_scale=3.5,
        true_cfg_scale=1.0,
        max_sequence_length=512,
        strength=0.6,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_sequence_length=512),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

SCHNELL = {"num_inference_steps": 4, "guidance_scale": 0.0, "max_sequence_length": 256}
"""Differing defaults of checkpoints without guidance."""
