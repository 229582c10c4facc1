"""HunyuanVideo text-to-video; guidance is an input of the model."""

from multimodal_gen.configs.families.components import (
    CLIP_TOKENIZERS,
    LLAMA_TOKENIZERS,
    encoder,
    module,
    tokenizer,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("hunyuanvideo-community/HunyuanVideo"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="HunyuanVideoTransformer3DModel",
        style="original",
        keys=("double_blocks.0.img_attn_qkv.weight", "txt_in.input_embedder.weight"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="HunyuanVideoTransformer3DModel",
        style="diffusers",
        keys=("context_embedder.proj_in.weight", "single_transformer_blocks.0.proj_mlp.weight"),
        bases=_BASES,
    ),
)

HUNYUAN_VIDEO = FamilyConfig(
    name="hunyuan_video",
    title="HunyuanVideo",
    pipeline_classes=("HunyuanVideoPipeline",),
    components={
        "tokenizer": tokenizer(*LLAMA_TOKENIZERS),
        "tokenizer_2": tokenizer(*CLIP_TOKENIZERS),
        "text_encoder": encoder("LlamaModel"),
        "text_encoder_2": encoder("CLIPTextModel"),
        "transformer": module("HunyuanVideoTransformer3DModel"),
        "vae": module("AutoencoderKLHunyuanVideo"),
    },
    tasks=("text-to-video",),
    parameters=("num_frames", "fps", "true_cfg_scale", "max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1280,
        height=720,
        num_frames=129,
        fps=24,
        num_inference_steps=50,
        guidance_scale=6.0,
        true_cfg_scale=1.0,
        max_sequence_length=256,
    ),
    limits=Limits(max_frames=257, max_sequence_length=512),
    frame_multiple=4,
    single_files=_SINGLE_FILES,
    views=(View.FLOW,),
)
