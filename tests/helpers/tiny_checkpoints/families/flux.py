"""FLUX.1: double and single stream blocks, 16 latent channels, no quant convolutions."""

from functools import partial
from typing import Any

from diffusers import (
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    SchedulerMixin,
)
from diffusers.pipelines.flux import pipeline_flux_kontext, pipeline_flux_kontext_inpaint

from .. import encoders
from ..case import INPAINTING, PICTURE, STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import picture
from ..schedulers import FLUX_DEV, Config
from ..tokenizers import clip_tokenizer, t5_tokenizer
from ..vaes import flux_vae

FLUX_SCHNELL: Config = {**FLUX_DEV, "shift": 1.0, "use_dynamic_shifting": False}

HEAD_DIM = 16


def flux_pipeline(
    scheduler: SchedulerMixin,
    *,
    heads: int,
    guidance_embeds: bool,
    kind: Any = FluxPipeline,
    in_channels: int = 64,
) -> Any:
    """A pipeline of the class `kind`, which has the components of FluxPipeline."""
    return kind(
        scheduler=scheduler,
        vae=flux_vae(),
        text_encoder=encoders.clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoders.t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=in_channels,
            out_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=heads,
            joint_attention_dim=encoders.WIDTH,
            pooled_projection_dim=encoders.WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
    )


CHECKPOINTS = {
    "flux-dev": TinyCheckpoint(
        partial(flux_pipeline, guidance_embeds=True),
        FLUX_DEV,
        ("prompt", "seed", "steps", "guidance", "true guidance"),
    ),
    "flux-schnell": TinyCheckpoint(
        partial(flux_pipeline, guidance_embeds=False),
        FLUX_SCHNELL,
        ("prompt", "seed", "steps", "true guidance"),
    ),
}
VARIANTS = {
    "flux-kontext": TinyCheckpoint(
        partial(flux_pipeline, guidance_embeds=True, kind=FluxKontextPipeline), FLUX_DEV
    ),
    "flux-fill": TinyCheckpoint(
        partial(flux_pipeline, guidance_embeds=True, kind=FluxFillPipeline, in_channels=384),
        FLUX_DEV,
    ),
}
_PREFERRED = [(64, 96), (96, 64)]
CASES = {
    ("flux", "text-to-image"): Case("flux-dev"),
    ("flux", "image-to-image"): Case("flux-dev", FluxImg2ImgPipeline, PICTURE | STRENGTH),
    ("flux", "inpainting"): Case("flux-dev", FluxInpaintPipeline, INPAINTING | STRENGTH),
    ("flux_fill", "inpainting"): Case("flux-fill", None, INPAINTING),
    ("flux_kontext", "text-to-image"): Case("flux-kontext", stock_call={"max_area": 96 * 64}),
    ("flux_kontext", "inpainting"): Case(
        "flux-kontext",
        FluxKontextInpaintPipeline,
        INPAINTING | STRENGTH | {"image": picture(150, 100)},
        patches=(
            (pipeline_flux_kontext_inpaint.__name__, "PREFERRED_KONTEXT_RESOLUTIONS", _PREFERRED),
        ),
    ),
    ("flux_kontext", "image-edit"): Case(
        "flux-kontext",
        changes=PICTURE,
        stock_call={"max_area": 96 * 64},
        patches=((pipeline_flux_kontext.__name__, "PREFERRED_KONTEXT_RESOLUTIONS", _PREFERRED),),
    ),
}
