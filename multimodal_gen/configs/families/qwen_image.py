"""Qwen-Image: a 20B transformer over the states of a Qwen2.5-VL."""

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

_SINGLE_FILES = (
    SingleFile(
        denoiser="QwenImageTransformer2DModel",
        style="diffusers",
        keys=("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight"),
        bases=(BaseModel("Qwen/Qwen-Image"),),
    ),
)
"""The original names are also diffusers' names. Qwen-Image-Edit has the same tensors, so its base
must be given."""

QWEN_IMAGE = FamilyConfig(
    name="qwen_image",
    title="Qwen-Image",
    pipeline_classes=(
        "QwenImagePipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
    ),
    components={
        "tokenizer": tokenizer(*QWEN_TOKENIZERS),
        "text_encoder": encoder("Qwen2_5_VLForConditionalGeneration", idle=(HEAD, "model.visual")),
        "transformer": native("QwenImageTransformer2DModel"),
        "vae": module("AutoencoderKLQwenImage"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("true_cfg_scale", "max_sequence_length", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=50,
        true_cfg_scale=4.0,
        max_sequence_length=512,
        strength=0.6,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_sequence_length=1024),
    views=(View.FLOW,),
    denoiser="native",
    single_files=_SINGLE_FILES,
    ulysses=True,
)
