"""CogVideoX 1.0 (2B, 5B) and 1.5 text-to-video."""

from multimodal_gen.configs.families.components import T5_TOKENIZERS, encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_SINGLE_FILES = (
    SingleFile(
        denoiser="CogVideoXTransformer3DModel",
        style="diffusers",
        keys=("patch_embed.text_proj.weight", "transformer_blocks.0.norm1.linear.weight"),
        bases=(
            BaseModel("zai-org/CogVideoX-5b", {"patch_embed.proj.weight": (3072,)}),
            BaseModel("zai-org/CogVideoX-2b"),
        ),
    ),
)

COGVIDEOX = FamilyConfig(
    name="cogvideox",
    title="CogVideoX",
    pipeline_classes=("CogVideoXPipeline", "CogVideoXVideoToVideoPipeline"),
    components={
        "tokenizer": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("T5EncoderModel"),
        "transformer": module("CogVideoXTransformer3DModel"),
        "vae": module("AutoencoderKLCogVideoX"),
    },
    tasks=("text-to-video", "video-to-video"),
    parameters=("num_frames", "fps", "max_sequence_length", "video_path", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=720,
        height=480,
        num_frames=49,
        fps=8,
        num_inference_steps=50,
        guidance_scale=6.0,
        max_sequence_length=226,
        strength=0.8,
    ),
    limits=Limits(max_frames=161, max_sequence_length=512),
    frame_multiple=4,
    single_files=_SINGLE_FILES,
    views=(View.SHIFTED_NOISE,),
    other_views=(View.NOISE,),
)

FPS_1_5 = 16
"""For CogVideoX 1.5, whose size and length are in its config."""
