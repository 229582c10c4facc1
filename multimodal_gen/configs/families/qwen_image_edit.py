"""Qwen-Image-Edit: Qwen-Image with images as input, changed as the prompt says."""

from multimodal_gen.configs.families.components import (
    HEAD,
    PROCESSORS,
    encoder,
    module,
    native,
    processor,
)
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.qwen_image import QWEN_IMAGE
from multimodal_gen.configs.families.single_file import of_another
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

QWEN_IMAGE_EDIT = FamilyConfig(
    name="qwen_image_edit",
    title="Qwen-Image-Edit",
    pipeline_classes=(
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "QwenImageEditInpaintPipeline",
    ),
    components={
        "processor": processor(*PROCESSORS),
        "text_encoder": encoder("Qwen2_5_VLForConditionalGeneration", idle=(HEAD,)),
        "transformer": native("QwenImageTransformer2DModel"),
        "vae": module("AutoencoderKLQwenImage"),
    },
    tasks=("image-edit", "inpainting"),
    parameters=("true_cfg_scale", *GUIDANCE_PARAMETERS),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=50,
        true_cfg_scale=4.0,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_images=10),
    picture_size="last",
    views=(View.FLOW,),
    denoiser="native",
    single_files=of_another(QWEN_IMAGE.single_files, "Qwen/Qwen-Image-Edit"),
    ulysses=True,
)
