"""PixArt-Sigma: a transformer that predicts noise and reads the prompt by cross-attention."""

from multimodal_gen.configs.families.components import T5_TOKENIZERS, encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="PixArtTransformer2DModel",
        style="original",
        keys=("blocks.0.cross_attn.kv_linear.weight", "t_block.1.weight"),
        without=("attention_y_norm.weight", "csize_embedder.mlp.0.weight"),
        ignored=("pos_embed", "y_embedder.y_embedding"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="PixArtTransformer2DModel",
        style="diffusers",
        keys=("adaln_single.linear.weight", "pos_embed.proj.weight"),
        bases=_BASES,
    ),
)

PIXART_SIGMA = FamilyConfig(
    name="pixart_sigma",
    title="PixArt-Sigma",
    pipeline_classes=("PixArtSigmaPipeline",),
    components={
        "tokenizer": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("T5EncoderModel"),
        "transformer": module("PixArtTransformer2DModel", "Transformer2DModel"),  # the old name
        "vae": module("AutoencoderKL"),
    },
    tasks=("text-to-image",),
    parameters=("max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=20,
        guidance_scale=4.5,
        max_sequence_length=300,
    ),
    limits=Limits(max_sequence_length=512),
    single_files=_SINGLE_FILES,
    views=(View.NOISE,),
)
