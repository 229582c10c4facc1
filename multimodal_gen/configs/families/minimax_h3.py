"""MiniMax-H3: videos with their sound from a text, first and last frame, or reference images."""

from multimodal_gen.configs.families.components import (
    HEAD,
    PROCESSORS,
    encoder,
    module,
    native,
    processor,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

LAYERS = 50
"""Layers of the text encoder after which its states are used."""

_BASES = (BaseModel("MiniMaxAI/MiniMax-H3"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="MiniMaxH3Transformer3DModel",
        style="original",
        keys=("token_refiner.blocks.0.attn.qkv_proj.weight", "time_embedder.proj_in.weight"),
        unreadable={
            "adaln_t_table": "a pruned MiniMax-H3, with adaln_t_table in place of time_embedder: "
            "not supported; take the file that is not pruned"
        },
        bases=_BASES,
    ),
    SingleFile(
        denoiser="MiniMaxH3Transformer3DModel",
        style="diffusers",
        keys=("token_refiner.refiner_blocks.0.attn.to_q.weight", "audio_proj_in.weight"),
        bases=_BASES,
    ),
)

MINIMAX_H3 = FamilyConfig(
    name="minimax_h3",
    title="MiniMax-H3",
    pipeline_classes=("MiniMaxH3ModularPipeline",),
    components={
        "processor": processor(*PROCESSORS),
        "text_encoder": encoder(
            "Qwen3VLForConditionalGeneration",
            idle=(HEAD, "model.language_model.norm"),
            depth=LAYERS,
        ),
        "transformer": native("MiniMaxH3Transformer3DModel", optional=True),
        "transformer_ref": native("MiniMaxH3Transformer3DModel", optional=True),
        "vae": module("AutoencoderKLMiniMaxH3"),
        "audio_vae": module("AutoencoderKLMiniMaxH3Audio"),
    },
    tasks=("text-to-video", "image-to-video", "reference-to-video"),
    parameters=("num_frames", "fps", "last_image_path", "image_use"),
    size_multiple=32,
    defaults=Defaults(width=1344, height=768, num_frames=124, fps=24, num_inference_steps=50),
    limits=Limits(min_frames=124, max_frames=345, max_images=9),
    frame_multiple=17,
    last_image_alone=True,
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)
