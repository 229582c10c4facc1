"""Pipelines with UNets: Stable Diffusion, SDXL and what is made of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers
from diffusers import ControlNetModel, MotionAdapter, T2IAdapter
from tiny_checkpoints import encoders
from tiny_checkpoints.families.stable_diffusion import TIME_ID_DIM, TIME_IDS
from tiny_checkpoints.schedulers import SD15

from .trial import Trial

_CHANNELS = (16, 32, 32, 32)
_CONTROL: dict[str, Any] = {
    "block_out_channels": _CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": encoders.WIDTH,
    "attention_head_dim": 4,
    "conditioning_embedding_out_channels": (8, 16),
}
_CONTROL_XL: dict[str, Any] = {
    **_CONTROL,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 2 * encoders.WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_ID_DIM,
    "projection_class_embeddings_input_dim": encoders.WIDTH + TIME_IDS * TIME_ID_DIM,
}
_DOWN_8 = {"conditioning_embedding_out_channels": (8, 8, 16, 16)}
_LCM = {**SD15, "_class_name": "LCMScheduler"}
_DDIM = {**SD15, "_class_name": "DDIMScheduler"}
_PAG = {"pag_applied_layers": "mid"}
STRENGTH = {"strength": 0.6, "num_inference_steps": 4}

IMAGE = {"image": "image"}
CONTROLLED = {"image": "image", "control_image": "image_2"}
INPAINTED = {"image": "image", "mask_image": "mask"}
BOTH = {**CONTROLLED, "mask_image": "mask"}
_SD_CONTROL = {"controlnet": lambda: ControlNetModel(**_CONTROL | _DOWN_8)}
_XL_CONTROL = {"controlnet": lambda: ControlNetModel(**_CONTROL_XL | _DOWN_8)}

_sd = partial(Trial, "sd15")
_xl = partial(Trial, "sdxl")


def _adapter(kind: str = "full_adapter", **changes: Any) -> T2IAdapter:
    return T2IAdapter(
        **{
            "in_channels": 3,
            "channels": [*_CHANNELS],
            "num_res_blocks": 1,
            "downscale_factor": 8,
            "adapter_type": kind,
            **changes,
        }
    )


def _motion(channels: tuple[int, ...] = _CHANNELS) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=channels,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
    )


UNETS: dict[str, Trial] = {
    "StableDiffusionControlNetPipeline": _sd(_SD_CONTROL, pictures=IMAGE),
    "StableDiffusionControlNetImg2ImgPipeline": _sd(
        _SD_CONTROL, pictures=CONTROLLED, call=STRENGTH
    ),
    "StableDiffusionControlNetInpaintPipeline": _sd(_SD_CONTROL, pictures=BOTH, call=STRENGTH),
    "StableDiffusionControlNetPAGPipeline": _sd(_SD_CONTROL, options=_PAG, pictures=IMAGE),
    "StableDiffusionControlNetPAGInpaintPipeline": _sd(
        _SD_CONTROL, options=_PAG, pictures=BOTH, call=STRENGTH
    ),
    "StableDiffusionPAGPipeline": _sd(options=_PAG),
    "StableDiffusionPAGImg2ImgPipeline": _sd(options=_PAG, pictures=IMAGE, call=STRENGTH),
    "StableDiffusionPAGInpaintPipeline": _sd(options=_PAG, pictures=INPAINTED, call=STRENGTH),
    "StableDiffusionInstructPix2PixPipeline": _sd(
        configs={"unet": {"in_channels": 8}}, pictures=IMAGE
    ),
    "StableDiffusionAdapterPipeline": _sd({"adapter": _adapter}, pictures=IMAGE),
    "LatentConsistencyModelPipeline": _sd(
        configs={"unet": {"time_cond_proj_dim": 32}}, scheduler=_LCM
    ),
    "LatentConsistencyModelImg2ImgPipeline": _sd(
        configs={"unet": {"time_cond_proj_dim": 32}}, scheduler=_LCM, pictures=IMAGE, call=STRENGTH
    ),
    "StableDiffusionUpscalePipeline": _sd(
        {"low_res_scheduler": lambda: diffusers.DDPMScheduler()},
        configs={"unet": {"in_channels": 7, "num_class_embeds": 1000}},
        scheduler=_DDIM,
        pictures=IMAGE,
    ),
    "AnimateDiffPipeline": _sd({"motion_adapter": _motion}, call={"num_frames": 9}),
    "AnimateDiffPAGPipeline": _sd({"motion_adapter": _motion}, call={"num_frames": 9}),
    "AnimateDiffControlNetPipeline": _sd(
        {"motion_adapter": _motion, **_SD_CONTROL},
        pictures={"conditioning_frames": "video"},
        call={"num_frames": 9},
    ),
    "AnimateDiffVideoToVideoPipeline": _sd(
        {"motion_adapter": _motion}, scheduler=_DDIM, pictures={"video": "video"}, call=STRENGTH
    ),
    "AnimateDiffSDXLPipeline": _xl(
        {"motion_adapter": lambda: _motion((16, 32, 32))}, call={"num_frames": 9}
    ),
    "StableDiffusionXLPAGPipeline": _xl(options=_PAG),
    "StableDiffusionXLPAGImg2ImgPipeline": _xl(options=_PAG, pictures=IMAGE, call=STRENGTH),
    "StableDiffusionXLPAGInpaintPipeline": _xl(options=_PAG, pictures=INPAINTED, call=STRENGTH),
    "StableDiffusionXLControlNetPipeline": _xl(_XL_CONTROL, pictures=IMAGE),
    "StableDiffusionXLControlNetImg2ImgPipeline": _xl(
        _XL_CONTROL, pictures=CONTROLLED, call=STRENGTH
    ),
    "StableDiffusionXLControlNetInpaintPipeline": _xl(_XL_CONTROL, pictures=BOTH, call=STRENGTH),
    "StableDiffusionXLControlNetPAGPipeline": _xl(_XL_CONTROL, options=_PAG, pictures=IMAGE),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": _xl(
        _XL_CONTROL, options=_PAG, pictures=CONTROLLED, call=STRENGTH
    ),
    "StableDiffusionXLInstructPix2PixPipeline": _xl(
        configs={"unet": {"in_channels": 8}}, pictures=IMAGE
    ),
    "StableDiffusionXLAdapterPipeline": _xl(
        {
            "adapter": lambda: _adapter(
                "full_adapter_xl", channels=[16, 32, 32], downscale_factor=16
            )
        },
        pictures=IMAGE,
    ),
}
