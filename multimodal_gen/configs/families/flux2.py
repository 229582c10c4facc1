"""FLUX.2 klein: distilled to four steps without guidance, and the base model it comes from."""

from dataclasses import replace

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

_KLEIN_4B = BaseModel("black-forest-labs/FLUX.2-klein-4B")


def _klein_9b(embedder: str) -> BaseModel:
    return BaseModel("black-forest-labs/FLUX.2-klein-9B", {embedder: (4096,)})


LAYOUTS = (
    SingleFile(
        denoiser="Flux2Transformer2DModel",
        style="original",
        keys=("double_blocks.0.img_attn.qkv.weight", "single_stream_modulation.lin.weight"),
        bases=(_klein_9b("img_in.weight"), _KLEIN_4B),
    ),
    SingleFile(
        denoiser="Flux2Transformer2DModel",
        style="diffusers",
        keys=(
            "transformer_blocks.0.attn.add_q_proj.weight",
            "single_stream_modulation.linear.weight",
        ),
        bases=(_klein_9b("x_embedder.weight"), _KLEIN_4B),
    ),
)
GUIDANCE = {
    "original": "guidance_in.in_layer.weight",
    "diffusers": "time_guidance_embed.guidance_embedder.linear_1.weight",
}
"""Tensor, by style, that only models with guidance as an input have."""

FLUX2 = FamilyConfig(
    name="flux2",
    title="FLUX.2 klein",
    pipeline_classes=("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
    components={
        "tokenizer": tokenizer(*QWEN_TOKENIZERS),
        "text_encoder": encoder("Qwen3ForCausalLM", "Qwen3Model", idle=(HEAD,), depth=28),
        "transformer": native("Flux2Transformer2DModel"),
        "vae": module("AutoencoderKLFlux2"),
    },
    tasks=("text-to-image", "image-edit", "inpainting"),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    picture_size="within",
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=512,
        inpainting_strength=0.8,
    ),
    limits=Limits(max_sequence_length=512, max_images=10),
    views=(View.FLOW,),
    denoiser="native",
    single_files=tuple(replace(each, without=(GUIDANCE[each.style],)) for each in LAYOUTS),
    ulysses=True,
)

BASE_DEFAULTS = msgspec.structs.replace(FLUX2.defaults, num_inference_steps=50, guidance_scale=4.0)
"""Defaults of checkpoints that are not distilled."""
