"""Stable Diffusion 1.5 and XL: UNets of the real block types, VAE with quant convolutions."""

from functools import partial

import PIL.Image
from diffusers import (
    SchedulerMixin,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from .. import encoders
from ..case import INPAINTING, STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import gradient, picture
from ..schedulers import SD15, SDXL
from ..tokenizers import clip_tokenizer
from ..vaes import image_vae

TIME_IDS = 6  # original size, crop corner and target size, two numbers each
TIME_ID_DIM = 8
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 2 * LATENT_CHANNELS + 1  # latents, mask, and the masked picture's latents


def sd15_pipeline(
    scheduler: SchedulerMixin, *, heads: int, inpainting: bool = False
) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=INPAINTING_CHANNELS if inpainting else LATENT_CHANNELS,
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=encoders.WIDTH,
        attention_head_dim=heads,
    )
    kind = StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline
    return kind(
        scheduler=scheduler,
        vae=image_vae(latent_channels=LATENT_CHANNELS, scaling_factor=0.18215),
        text_encoder=encoders.clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(
    scheduler: SchedulerMixin, *, heads: int, inpainting: bool = False
) -> StableDiffusionXLPipeline | StableDiffusionXLInpaintPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=INPAINTING_CHANNELS if inpainting else LATENT_CHANNELS,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=2 * encoders.WIDTH,
        attention_head_dim=heads,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_DIM,
        projection_class_embeddings_input_dim=encoders.WIDTH + TIME_IDS * TIME_ID_DIM,
    )
    kind = StableDiffusionXLInpaintPipeline if inpainting else StableDiffusionXLPipeline
    return kind(
        scheduler=scheduler,
        vae=image_vae(latent_channels=LATENT_CHANNELS, scaling_factor=0.13025),
        text_encoder=encoders.clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoders.clip_text_with_projection(),
        tokenizer_2=clip_tokenizer(pad_token="!"),
        unet=unet,
        force_zeros_for_empty_prompt=True,
    )


_WHITE = {"image": gradient(), "mask_image": PIL.Image.new("L", gradient().size, "white")}
CHECKPOINTS = {
    "sd15": TinyCheckpoint(sd15_pipeline, SD15),
    "sdxl": TinyCheckpoint(sdxl_pipeline, SDXL),
    "sd15-inpainting": TinyCheckpoint(partial(sd15_pipeline, inpainting=True), SD15, call=_WHITE),
    "sdxl-inpainting": TinyCheckpoint(partial(sdxl_pipeline, inpainting=True), SDXL, call=_WHITE),
}
_UNSIZED = {"image": picture(96, 64), "width": None, "height": None}
"""For classes that take the size from the picture alone."""
CASES = {
    ("stable_diffusion", "text-to-image"): Case("sd15"),
    ("stable_diffusion", "image-to-image"): Case(
        "sd15", StableDiffusionImg2ImgPipeline, _UNSIZED | STRENGTH
    ),
    ("stable_diffusion", "inpainting"): Case(
        "sd15", StableDiffusionInpaintPipeline, INPAINTING | STRENGTH
    ),
    ("stable_diffusion_xl", "text-to-image"): Case("sdxl"),
    ("stable_diffusion_xl", "image-to-image"): Case(
        "sdxl", StableDiffusionXLImg2ImgPipeline, _UNSIZED | STRENGTH
    ),
    ("stable_diffusion_xl", "inpainting"): Case(
        "sdxl", StableDiffusionXLInpaintPipeline, INPAINTING | STRENGTH
    ),
}
