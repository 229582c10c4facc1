"""Stable Diffusion XL: a larger UNet that is also conditioned on pooled text and the image size."""

from multimodal_gen.configs.families.components import CLIP_TOKENIZERS, encoder, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.families.stable_diffusion import SEES_MASK, STABLE_DIFFUSION
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits


def _bases(first: str) -> tuple[BaseModel, ...]:
    return (
        BaseModel("diffusers/stable-diffusion-xl-1.0-inpainting-0.1", {first: SEES_MASK}),
        BaseModel("playgroundai/playground-v2.5-1024px-aesthetic", marker="edm_mean"),
        BaseModel("stabilityai/stable-diffusion-xl-base-1.0"),
    )


_SINGLE_FILES = (
    SingleFile(
        denoiser="UNet2DConditionModel",
        style="original",
        keys=(
            "input_blocks.0.0.weight",
            "label_emb.0.0.weight",
            "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        ),
        without=("input_hint_block.0.weight",),
        bases=_bases("input_blocks.0.0.weight"),
    ),
    SingleFile(
        denoiser="UNet2DConditionModel",
        style="diffusers",
        keys=(
            "conv_in.weight",
            "add_embedding.linear_1.weight",
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        ),
        without=("controlnet_mid_block.weight",),
        bases=_bases("conv_in.weight"),
    ),
)

STABLE_DIFFUSION_XL = FamilyConfig(
    name="stable_diffusion_xl",
    title="Stable Diffusion XL",
    pipeline_classes=(
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ),
    components={
        **STABLE_DIFFUSION.components,
        "tokenizer_2": tokenizer(*CLIP_TOKENIZERS),
        "text_encoder_2": encoder("CLIPTextModelWithProjection"),
    },
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("prompt_syntax", *GUIDANCE_PARAMETERS),
    size_multiple=8,
    picture_size="own",
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=50,
        guidance_scale=5.0,
        strength=0.3,
        inpainting_strength=0.9999,
    ),
    limits=Limits(),
    views=(View.NOISE,),
    other_views=(View.PRECONDITIONED,),
    single_files=_SINGLE_FILES,
)
