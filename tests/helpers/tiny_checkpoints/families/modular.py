"""Modular pipelines of diffusers, made of the components of others."""

from typing import Any

import diffusers
from diffusers import (
    Flux3Transformer2DModel,
    LTX2VideoDiffusionDecoderModel,
    ModularPipeline,
    SchedulerMixin,
    WanAnimate2Transformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2DurationHead
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..case import STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..schedulers import FLUX_DEV
from . import flux, ltx, ltx2, qwen_image, stable_diffusion, stable_diffusion_3, wan
from .flux2 import HEAD_DIM, LATENT_CHANNELS, flux2_klein_pipeline, flux2_vae
from .minimax_h3 import qwen3_processor, qwen3_vl
from .z_image import SCHEDULER, z_image_pipeline


def modular(name: str, components: dict[str, Any]) -> ModularPipeline:
    """The pipeline class `name`, with these of its components."""
    kind = getattr(diffusers, f"{name}ModularPipeline")
    pipeline = kind(getattr(diffusers, kind.default_blocks_name)())
    own = pipeline.pretrained_component_names
    pipeline.update_components(**{key: each for key, each in components.items() if key in own})
    return pipeline


def z_image(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    return modular("ZImage", z_image_pipeline(scheduler, heads=heads).components)


def flux2_klein(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    stock = flux2_klein_pipeline(scheduler, heads=heads, is_distilled=True)
    return modular("Flux2Klein", stock.components)


def flux3(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    transformer = Flux3Transformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        cond_in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=heads,
        joint_attention_dim=8 * WIDTH,
        timestep_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
    )
    processor = qwen3_processor()
    processor.chat_template = "user {{ messages[0]['content'] }}"
    processor.tokenizer.chat_template = processor.chat_template
    parts = {"tokenizer": processor, "text_encoder": qwen3_vl(), "vae": flux2_vae()}
    return modular("Flux3", {**parts, "transformer": transformer, "scheduler": scheduler})


def wan_animate_2(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    stock = wan.wan_i2v_pipeline(scheduler, heads=heads, clip=True).components
    seen = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
    )
    vae, text = stock["vae"], stock["text_encoder"].config.d_model
    transformer = WanAnimate2Transformer3DModel(
        text_len=512,
        in_dim=2 * vae.config.z_dim + 4,
        dim=heads * 12,
        ffn_dim=32,
        freq_dim=16,
        text_dim=text,
        out_dim=vae.config.z_dim,
        num_heads=heads,
        num_layers=1,
    )
    return modular(
        "WanAnimate2", {**stock, "image_encoder": CLIPVisionModel(seen), "transformer": transformer}
    )


def ltx25(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
    """What is new is how long a video is by itself, and a decoder of videos that denoises."""
    stock = ltx2.ltx2_pipeline(scheduler, heads=heads, newer=True).components
    duration = LTX2DurationHead(
        video_cross_attention_dim=heads * ltx2.HEAD_DIM,
        audio_cross_attention_dim=heads * ltx2.AUDIO_HEAD_DIM,
        pooler_hidden_dim=8,
        mlp_hidden_dim=8,
    )
    decoder = LTX2VideoDiffusionDecoderModel(
        latent_channels=ltx2.CHANNELS,
        patch_size=2,
        decoder_head_dim=8,
        decoder_stage_channels=(16,) * 5,
        decoder_stage_depths=(1,) * 5,
        decoder_stage_kernels=((3, 3, 3),) * 4,
        decoder_upsample_strides=((1, 2, 2), (2, 1, 1), (2, 2, 2), (1, 1, 1)),
        decoder_upsample_channel_reductions=(1,) * 4,
        decoder_stage5_kernel=(3, 3, 3),
        decoder_t_emb_dim=16,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    return modular("LTX25", {**stock, "duration_head": duration, "diffusion_decoder": decoder})


def _of_stock(name: str, stock: TinyCheckpoint) -> TinyCheckpoint:
    """The modular pipeline `name`, with the components of another pipeline's tiny checkpoint."""

    def pipeline(scheduler: SchedulerMixin, *, heads: int) -> ModularPipeline:
        return modular(name, stock.pipeline(scheduler, heads=heads).components)

    return TinyCheckpoint(pipeline, stock.scheduler)


_PICTURE = {"image": picture(96, 64)}
VARIANTS = {
    "modular-zimage": TinyCheckpoint(z_image, SCHEDULER),
    "modular-flux2-klein": TinyCheckpoint(flux2_klein, FLUX_DEV),
    "flux3": TinyCheckpoint(flux3, FLUX_DEV),
    "wan-animate-2": TinyCheckpoint(wan_animate_2, SCHEDULER),
    "ltx2.5": TinyCheckpoint(ltx25, ltx2.SCHEDULER),
    "modular-flux": _of_stock("Flux", flux.CHECKPOINTS["flux-dev"]),
    "modular-ltx": _of_stock("LTX", ltx.CHECKPOINTS["ltx"]),
    "modular-qwenimage": _of_stock("QwenImage", qwen_image.CHECKPOINTS["qwenimage"]),
    "modular-sd3": _of_stock("StableDiffusion3", stable_diffusion_3.CHECKPOINTS["sd3"]),
    "modular-sdxl": _of_stock("StableDiffusionXL", stable_diffusion.CHECKPOINTS["sdxl"]),
    "modular-wan22": _of_stock("Wan22", wan.CHECKPOINTS["wan22"]),
}
_VIDEO = {"num_frames": 9, "guidance_scale": None}
CASES = {
    ("modular", "text-to-video"): Case("modular-ltx", changes=_VIDEO),
    ("modular", "image-to-video"): Case("modular-ltx", changes=_VIDEO | _PICTURE),
    ("modular", "text-to-image"): Case("modular-zimage"),
    ("modular", "image-to-image"): Case("modular-zimage", changes=_PICTURE | STRENGTH),
    ("modular", "image-edit"): Case(
        "modular-flux2-klein", changes={**_PICTURE, "guidance_scale": None}
    ),
}
