"""Sana: linear attention in the latents of a 32x autoencoder, flow matching, a language model."""

from multimodal_gen.configs.families.components import GEMMA_TOKENIZERS, encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("Efficient-Large-Model/Sana_1600M_1024px_diffusers"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="SanaTransformer2DModel",
        style="original",
        keys=("blocks.0.mlp.depth_conv.conv.weight", "attention_y_norm.weight"),
        ignored=("pos_embed", "y_embedder.y_embedding"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="SanaTransformer2DModel",
        style="diffusers",
        keys=("transformer_blocks.0.ff.conv_depth.weight", "caption_norm.weight"),
        bases=_BASES,
    ),
)

SANA = FamilyConfig(
    name="sana",
    title="Sana",
    pipeline_classes=("SanaPipeline",),
    components={
        "tokenizer": tokenizer(*GEMMA_TOKENIZERS),
        "text_encoder": encoder("Gemma2Model"),
        "transformer": module("SanaTransformer2DModel"),
        "vae": module("AutoencoderDC"),
    },
    tasks=("text-to-image",),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=32,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=20,
        guidance_scale=4.5,
        max_sequence_length=300,
    ),
    limits=Limits(max_sequence_length=512),
    single_files=_SINGLE_FILES,
    views=(View.FLOW,),
    own_solver="dpmpp_2m",
)
