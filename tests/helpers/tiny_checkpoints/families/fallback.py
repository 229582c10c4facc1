"""Pipelines without a family of their own, as the fallback runs them: a legacy step callback
(PixArt-alpha), the present one (Lumina 2), a video (Latte), and one for each use of pictures."""

from collections.abc import Callable
from typing import Any

import diffusers
from diffusers import (
    LattePipeline,
    LatteTransformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SchedulerMixin,
)

from .. import encoders, llms
from ..case import AS_ASKED, STRENGTH, VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..llm_tokenizers import gemma_tokenizer
from ..pictures import clip, picture
from ..schedulers import PIXART_SIGMA, SD15, Config
from ..tokenizers import t5_tokenizer
from ..vaes import image_vae
from . import ltx, stable_diffusion

LATTE: Config = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": False,
    "num_train_timesteps": 1000,
}
LUMINA2: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 6.0,
}

HEAD_DIM = 8


def pixart_alpha_pipeline(scheduler: SchedulerMixin, *, heads: int) -> PixArtAlphaPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=32,  # one of the three whose sizes the pipeline knows
        num_layers=2,
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        cross_attention_dim=heads * HEAD_DIM,
        caption_channels=encoders.WIDTH,
        out_channels=8,
        use_additional_conditions=False,
    )
    return PixArtAlphaPipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=4, scaling_factor=0.18215),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def latte_pipeline(scheduler: SchedulerMixin, *, heads: int) -> LattePipeline:
    transformer = LatteTransformer3DModel(
        sample_size=8,
        video_length=16,
        num_layers=1,
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        in_channels=4,
        out_channels=8,
        patch_size=2,
        cross_attention_dim=heads * HEAD_DIM,
        caption_channels=encoders.WIDTH,
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
    )
    return LattePipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=4, scaling_factor=0.18215),
        text_encoder=encoders.t5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )


def lumina2_pipeline(scheduler: SchedulerMixin, *, heads: int) -> Lumina2Pipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=16,
        hidden_size=heads * HEAD_DIM,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=heads,
        num_kv_heads=heads // 2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=encoders.WIDTH,
    )
    return Lumina2Pipeline(
        scheduler=scheduler,
        vae=image_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=llms.gemma2(),
        tokenizer=gemma_tokenizer(),
        transformer=transformer,
    )


def _of_parts(
    name: str, made: Callable[..., Any], scheduler: Config, **unet: Any
) -> TinyCheckpoint:
    """The class `name`, with the components of another pipeline and changes to its UNet."""

    def pipeline(scheduler: SchedulerMixin, *, heads: int) -> Any:
        parts = made(scheduler, heads=heads).components
        if unet:
            parts["unet"] = type(parts["unet"])(**{**parts["unet"].config, **unet})
        return getattr(diffusers, name)(**parts)

    return TinyCheckpoint(pipeline, scheduler)


CHECKPOINTS = {
    "pixart-alpha": TinyCheckpoint(pixart_alpha_pipeline, PIXART_SIGMA, call=AS_ASKED),
    "latte": TinyCheckpoint(latte_pipeline, LATTE, call={"video_length": 16}),
    "lumina2": TinyCheckpoint(lumina2_pipeline, LUMINA2, call={"system_prompt": "a"}),
}
VARIANTS = {
    "sd15-pag-image": _of_parts(
        "StableDiffusionPAGImg2ImgPipeline", stable_diffusion.sd15_pipeline, SD15
    ),
    "sd15-pag-inpainting": _of_parts(
        "StableDiffusionPAGInpaintPipeline", stable_diffusion.sd15_pipeline, SD15
    ),
    "instruct-pix2pix": _of_parts(
        "StableDiffusionInstructPix2PixPipeline",
        stable_diffusion.sd15_pipeline,
        SD15,
        in_channels=2 * stable_diffusion.LATENT_CHANNELS,
    ),
    "ltx-condition": _of_parts("LTXConditionPipeline", ltx.ltx_pipeline, LUMINA2),
}
_SIZE = (96, 64)
_OF_PICTURES: dict[str, Any] = {"width": None, "height": None}
"""For calls that take their size from the picture."""
_IMAGE = {"image": picture(*_SIZE)}
_MASK = {"mask_image": picture(*_SIZE, "L")}
_VIDEO = {"video": clip(9, *_SIZE)}
CASES = {
    ("fallback", "text-to-image"): Case("lumina2"),
    ("fallback", "image-to-image"): Case(
        "sd15-pag-image", changes=_OF_PICTURES | _IMAGE | STRENGTH
    ),
    ("fallback", "inpainting"): Case("sd15-pag-inpainting", changes=_IMAGE | _MASK | STRENGTH),
    ("fallback", "image-edit"): Case("instruct-pix2pix", changes=_OF_PICTURES | _IMAGE),
    ("fallback", "text-to-video"): Case("latte", stock_call={"clean_caption": False}),
    ("fallback", "image-to-video"): Case("ltx-condition", changes=_IMAGE | VIDEO),
    ("fallback", "video-to-video"): Case("ltx-condition", changes=_VIDEO | VIDEO),
}
