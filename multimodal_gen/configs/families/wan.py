"""Wan 2.1 and 2.2, of texts and videos; sizes, steps and guidance as in published examples."""

import msgspec

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

PARAMETERS = ("num_frames", "fps", "max_sequence_length", *GUIDANCE_PARAMETERS)
OF_EXPERTS = ("guidance_scale_2",)
"""For models with two experts."""
LIMITS = Limits(max_frames=241, max_sequence_length=512)
DEFAULTS = Defaults(
    width=832,
    height=480,
    num_frames=81,
    fps=16,
    num_inference_steps=50,
    guidance_scale=5.0,
    max_sequence_length=512,
)
_STRENGTH = 0.8
"""Of a model that may start from a video."""

_PATCHES = "patch_embedding.weight"
_BASES = (
    BaseModel("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", {_PATCHES: (1536,)}),
    BaseModel("Wan-AI/Wan2.2-TI2V-5B-Diffusers", {_PATCHES: (3072, 48)}),
    BaseModel("Wan-AI/Wan2.1-T2V-14B-Diffusers"),
)
ORIGINAL_KEYS = ("blocks.0.self_attn.q.weight", "head.modulation")
DIFFUSERS_KEYS = ("blocks.0.attn1.to_q.weight", "condition_embedder.time_proj.weight")
NOT_WAN = (
    "vace_blocks.0.after_proj.bias",
    "vace_blocks.0.proj_out.weight",
    "face_adapter.fuser_blocks.0.linear2.weight",
)
"""Tensors of other models based on Wan's transformer."""
_SINGLE_FILES = (
    SingleFile(
        denoiser="WanTransformer3DModel",
        style="original",
        keys=ORIGINAL_KEYS,
        without=NOT_WAN,
        bases=_BASES,
    ),
    SingleFile(
        denoiser="WanTransformer3DModel",
        style="diffusers",
        keys=DIFFUSERS_KEYS,
        without=NOT_WAN,
        bases=_BASES,
    ),
)
"""Wan 2.2 A14B's experts have the same tensors as 2.1: their base must be given."""

WAN = FamilyConfig(
    name="wan",
    title="Wan 2.1 and 2.2 text-to-video",
    pipeline_classes=("WanPipeline", "WanVideoToVideoPipeline"),
    components={
        "tokenizer": tokenizer(*T5_TOKENIZERS),
        "text_encoder": encoder("UMT5EncoderModel", "T5EncoderModel"),
        "transformer": native("WanTransformer3DModel", optional=True),
        "transformer_2": native("WanTransformer3DModel", optional=True),
        "vae": module("AutoencoderKLWan"),
    },
    tasks=("text-to-video", "video-to-video"),
    parameters=(*PARAMETERS, "video_path"),
    size_multiple=16,
    defaults=msgspec.structs.replace(DEFAULTS, strength=_STRENGTH),
    limits=LIMITS,
    frame_multiple=4,
    views=(View.FLOW,),
    own_solver="unipc",
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)

EXPERTS_DEFAULTS = msgspec.structs.replace(
    WAN.defaults,
    width=1280,
    height=720,
    num_inference_steps=40,
    guidance_scale=4.0,
    guidance_scale_2=3.0,
)
"""Defaults of Wan 2.2 A14B."""

TEXT_IMAGE_DEFAULTS = msgspec.structs.replace(
    DEFAULTS, width=1280, height=704, num_frames=121, fps=24
)
"""Defaults of Wan 2.2 TI2V-5B."""
