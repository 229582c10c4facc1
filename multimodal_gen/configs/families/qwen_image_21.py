"""Qwen-Image 2.1: one stream after the states of a Qwen3-VL, from a text and from images."""

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
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_BASES = (BaseModel("Qwen/Qwen-Image-2.1"),)
_SINGLE_FILES = (
    SingleFile(
        denoiser="QwenImage21Transformer2DModel",
        style="original",
        keys=("txt_in.text_norm.weight", "transformer_blocks.0.img_mlp.gate_up.weight"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="QwenImage21Transformer2DModel",
        style="diffusers",
        keys=("txt_in.text_norm.weight", "transformer_blocks.0.img_mlp.gate_layer.weight"),
        bases=_BASES,
    ),
)

QWEN_IMAGE_21 = FamilyConfig(
    name="qwen_image_21",
    title="Qwen-Image 2.1",
    pipeline_classes=("QwenImage21Pipeline",),
    components={
        "processor": processor(*PROCESSORS),
        "text_encoder": encoder(
            "Qwen3VLForConditionalGeneration", idle=(HEAD, "model.language_model.norm")
        ),
        "transformer": native("QwenImage21Transformer2DModel"),
        "vae": module("AutoencoderKLQwenImage21"),
    },
    tasks=("text-to-image", "image-edit"),
    parameters=("true_cfg_scale", *GUIDANCE_PARAMETERS),
    size_multiple=32,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=40, true_cfg_scale=1.0),
    limits=Limits(max_images=10),
    picture_size="last",
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)
