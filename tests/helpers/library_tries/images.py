"""Pipelines of pictures with transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers
from diffusers import FluxControlNetModel
from tiny_checkpoints import encoders, llms
from tiny_checkpoints.families import qwen_image, stable_diffusion_3
from tiny_checkpoints.families.hidream import hidream_transformer, llama_lm, long_clip
from tiny_checkpoints.families.hunyuan_video_15 import byt5
from tiny_checkpoints.llm_tokenizers import gemma_tokenizer, llama_tokenizer
from tiny_checkpoints.qwen3 import qwen3, qwen3_tokenizer
from tiny_checkpoints.schedulers import FLUX_DEV
from tiny_checkpoints.tokenizers import clip_tokenizer, t5_tokenizer
from tiny_checkpoints.vaes import flux_vae, image_vae
from transformers import (
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    GlmConfig,
    GlmModel,
)

from .trial import Trial
from .unets import BOTH, CONTROLLED, IMAGE, INPAINTED, STRENGTH

W = encoders.WIDTH
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
_CONTROL = {"control_image": "image"}
_FLUX_LIKE: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": W,
    "axes_dims_rope": (4, 6, 6),
}


def vae4() -> Any:
    return image_vae(latent_channels=4, scaling_factor=0.18215)


def vae16() -> Any:
    return image_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159)


def qwen2_5_vl_text() -> Any:
    return qwen_image.qwen2_5_vl().model.language_model


def processor() -> Any:
    return qwen_image.PictureProcessor(
        image_processor=qwen_image.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 16 * 64, "longest_edge": 60 * 64}, patch_size=8
        ),
        tokenizer=qwen_image.qwen2_tokenizer(),
    )


def _flux(kind: str, **changes: Any) -> Trial:
    return Trial("flux-dev", **{"configs": {"transformer": {"in_channels": 128}}, **changes})


def _flux_control() -> FluxControlNetModel:
    return FluxControlNetModel(
        **_FLUX_LIKE, in_channels=64, pooled_projection_dim=W, guidance_embeds=True
    )


_SD3_CONTROL = {
    "controlnet": lambda: diffusers.SD3ControlNetModel(
        sample_size=8,
        in_channels=16,
        num_layers=1,
        attention_head_dim=stable_diffusion_3.HEAD_DIM,
        num_attention_heads=4,
        joint_attention_dim=stable_diffusion_3.TEXT_WIDTH,
        caption_projection_dim=4 * stable_diffusion_3.HEAD_DIM,
        pooled_projection_dim=2 * W,
        pos_embed_max_size=12,
    )
}
_QWEN_CONTROL = {
    "controlnet": lambda: diffusers.QwenImageControlNetModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=W,
        axes_dims_rope=(4, 6, 6),
    )
}
_LUMINA_LIKE = {"vae": vae4, "text_encoder": llms.gemma2, "tokenizer": gemma_tokenizer}
_COGVIEW4 = {
    "vae": vae16,
    "tokenizer": llama_tokenizer,
    "text_encoder": lambda: GlmModel(
        GlmConfig(
            vocab_size=len(llama_tokenizer()),
            hidden_size=W,
            intermediate_size=2 * W,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=0,
        )
    ),
}


def _cogview4(channels: int) -> Any:
    return diffusers.CogView4Transformer2DModel(
        in_channels=channels,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=W,
        time_embed_dim=16,
        condition_dim=8,
        sample_size=8,
        rope_axes_dim=(16, 16),
    )


_SPRINT: dict[str, Any] = {
    "configs": {
        "transformer": {
            "sample_size": 32,
            "guidance_embeds": True,
            "guidance_embeds_scale": 0.1,
            "qk_norm": "rms_norm_across_heads",
        }
    },
    "scheduler": {"_class_name": "SCMScheduler", "sigma_data": 0.5},
}
_KANDINSKY5: dict[str, Any] = {
    "vae": flux_vae,
    "text_encoder": qwen_image.qwen2_5_vl,
    "tokenizer": processor,
    "text_encoder_2": encoders.clip_text,
    "tokenizer_2": clip_tokenizer,
}


def kandinsky5(**config: Any) -> Any:
    return diffusers.Kandinsky5Transformer3DModel(
        **{
            "in_visual_dim": 16,
            "out_visual_dim": 16,
            "in_text_dim": W,
            "in_text_dim2": W,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 48,
            "num_text_blocks": 1,
            "num_visual_blocks": 1,
            "axes_dims": (4, 6, 6),
            **config,
        }
    )


_HUNYUAN_IMAGE: dict[str, Any] = {
    "vae": lambda: diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=32,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        spatial_compression_ratio=8,
        sample_size=64,
        scaling_factor=0.75,
    ),
    "text_encoder": qwen_image.qwen2_5_vl,
    "tokenizer": qwen_image.qwen2_tokenizer,
    "text_encoder_2": byt5,
    "tokenizer_2": lambda: ByT5Tokenizer(extra_ids=16),
}


def _hunyuan_image(**config: Any) -> Any:
    return diffusers.HunyuanImageTransformer2DModel(
        **{
            "in_channels": 32,
            "out_channels": 32,
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "patch_size": (1, 1),
            "text_embed_dim": W,
            "text_embed_2_dim": W,
            "rope_axes_dim": (4, 4),
            **config,
        }
    )


def _dit(**parts: Any) -> Any:
    return {
        "vae": vae4,
        "text_encoder": lambda: BertModel(
            BertConfig(
                vocab_size=len(clip_tokenizer()),
                hidden_size=W,
                intermediate_size=2 * W,
                num_hidden_layers=2,
                num_attention_heads=4,
            )
        ),
        **parts,
    }


IMAGES: dict[str, Trial] = {
    "FluxControlPipeline": _flux("", pictures=_CONTROL),
    "FluxControlImg2ImgPipeline": _flux("", pictures=CONTROLLED, call=STRENGTH),
    "FluxControlInpaintPipeline": _flux("", pictures=BOTH, call=STRENGTH),
    "FluxControlNetPipeline": _flux(
        "", configs={}, parts={"controlnet": _flux_control}, pictures=_CONTROL
    ),
    "FluxControlNetImg2ImgPipeline": _flux(
        "", configs={}, parts={"controlnet": _flux_control}, pictures=CONTROLLED, call=STRENGTH
    ),
    "FluxControlNetInpaintPipeline": _flux(
        "", configs={}, parts={"controlnet": _flux_control}, pictures=BOTH, call=STRENGTH
    ),
    "FluxKontextInpaintPipeline": Trial(
        "flux-kontext", pictures=INPAINTED | {"image_reference": "image_2"}, call=STRENGTH
    ),
    "Flux2KleinKVPipeline": Trial("flux2-klein", pictures=IMAGE, call={"guidance_scale": None}),
    "StableDiffusion3PAGPipeline": Trial("sd3"),
    "StableDiffusion3PAGImg2ImgPipeline": Trial("sd3", pictures=IMAGE, call=STRENGTH),
    "StableDiffusion3ControlNetPipeline": Trial("sd3", _SD3_CONTROL, pictures=_CONTROL),
    "StableDiffusion3ControlNetInpaintingPipeline": Trial(
        "sd3",
        {
            "controlnet": lambda: diffusers.SD3ControlNetModel(
                **{**_SD3_CONTROL["controlnet"]().config, "extra_conditioning_channels": 1}
            )
        },
        pictures={"control_image": "image", "control_mask": "mask"},
    ),
    "QwenImageControlNetPipeline": Trial("qwenimage", _QWEN_CONTROL, pictures=_CONTROL),
    "QwenImageEditInpaintPipeline": Trial(
        "qwenimage-edit", pictures=INPAINTED, call=STRENGTH | {"guidance_scale": None}
    ),
    "PixArtAlphaPipeline": Trial("pixart-alpha"),
    "PixArtSigmaPAGPipeline": Trial("pixart-sigma", configs={"transformer": {"sample_size": 32}}),
    "SanaPAGPipeline": Trial("sana", configs={"transformer": {"sample_size": 16}}),
    "SanaSprintPipeline": Trial("sana", **_SPRINT),
    "SanaSprintImg2ImgPipeline": Trial("sana", **_SPRINT, pictures=IMAGE, call={"strength": 0.6}),
    "SanaControlNetPipeline": Trial(
        "sana",
        {
            "controlnet": lambda: diffusers.SanaControlNetModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=8,
                num_layers=1,
                num_cross_attention_heads=2,
                cross_attention_head_dim=16,
                cross_attention_dim=32,
                caption_channels=W,
                sample_size=8,
            )
        },
        configs={"transformer": {"sample_size": 16}},
        pictures=_CONTROL,
    ),
    "Lumina2Pipeline": Trial("lumina2"),
    "LuminaPipeline": Trial(
        parts=_LUMINA_LIKE
        | {
            "transformer": lambda: diffusers.LuminaNextDiT2DModel(
                sample_size=8,
                hidden_size=32,
                num_layers=1,
                num_attention_heads=4,
                num_kv_heads=2,
                multiple_of=16,
                cross_attention_dim=W,
            )
        },
        scheduler=FLOW,
    ),
    "AuraFlowPipeline": Trial(
        parts={
            "vae": vae4,
            "tokenizer": t5_tokenizer,
            "text_encoder": encoders.umt5,
            "transformer": lambda: diffusers.AuraFlowTransformer2DModel(
                sample_size=8,
                num_mmdit_layers=1,
                num_single_dit_layers=1,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=W,
                caption_projection_dim=32,
                pos_embed_max_size=64,
            ),
        },
        scheduler=FLOW,
    ),
    "CogView3PlusPipeline": Trial(
        parts={
            "vae": vae16,
            "tokenizer": t5_tokenizer,
            "text_encoder": encoders.t5,
            "transformer": lambda: diffusers.CogView3PlusTransformer2DModel(
                num_layers=1,
                attention_head_dim=8,
                num_attention_heads=4,
                text_embed_dim=W,
                time_embed_dim=16,
                condition_dim=8,
                pos_embed_max_size=16,
                sample_size=8,
            ),
        },
        scheduler={
            "_class_name": "CogVideoXDDIMScheduler",
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
    ),
    "CogView4Pipeline": Trial(
        parts=_COGVIEW4 | {"transformer": partial(_cogview4, 16)},
        scheduler=FLOW | {"use_dynamic_shifting": True},
    ),
    "CogView4ControlPipeline": Trial(
        parts=_COGVIEW4 | {"transformer": partial(_cogview4, 32)},
        scheduler=FLOW | {"use_dynamic_shifting": True},
        pictures=_CONTROL,
    ),
    "HiDreamImagePipeline": Trial(
        parts={
            "vae": flux_vae,
            "text_encoder": long_clip,
            "tokenizer": clip_tokenizer,
            "text_encoder_2": long_clip,
            "tokenizer_2": clip_tokenizer,
            "text_encoder_3": encoders.t5,
            "tokenizer_3": t5_tokenizer,
            "text_encoder_4": llama_lm,
            "tokenizer_4": llama_tokenizer,
            "transformer": hidream_transformer,
        },
        scheduler=FLOW,
    ),
    "Kandinsky5T2IPipeline": Trial(
        parts=_KANDINSKY5 | {"transformer": kandinsky5},
        scheduler=FLOW,
        call={"width": 1024, "height": 1024},
    ),
    "Kandinsky5I2IPipeline": Trial(
        parts=_KANDINSKY5 | {"transformer": partial(kandinsky5, visual_cond=True)},
        scheduler=FLOW,
        pictures=IMAGE,
        call={"width": 1024, "height": 1024},
    ),
    "HunyuanImagePipeline": Trial(
        parts=_HUNYUAN_IMAGE
        | {
            "transformer": _hunyuan_image,
            "guider": diffusers.AdaptiveProjectedMixGuidance,
        },
        scheduler=FLOW,
        call={"guidance_scale": None},
    ),
    "OvisImagePipeline": Trial(
        parts={
            "vae": flux_vae,
            "text_encoder": lambda: qwen3(2).model,
            "tokenizer": qwen3_tokenizer,
            "transformer": lambda: diffusers.OvisImageTransformer2DModel(
                **_FLUX_LIKE, in_channels=64, out_channels=64
            ),
        },
        scheduler=FLUX_DEV,
    ),
    "BriaPipeline": Trial(
        parts={
            "vae": vae4,
            "text_encoder": encoders.t5,
            "tokenizer": t5_tokenizer,
            "transformer": lambda: diffusers.BriaTransformer2DModel(**_FLUX_LIKE, in_channels=16),
        },
        scheduler=FLOW,
    ),
    "ConsistencyModelPipeline": Trial(
        parts={
            "unet": lambda: diffusers.UNet2DModel(
                sample_size=64,
                block_out_channels=(16, 32),
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                norm_num_groups=8,
                attention_head_dim=8,
            )
        },
        scheduler={"_class_name": "CMStochasticIterativeScheduler"},
    ),
}
