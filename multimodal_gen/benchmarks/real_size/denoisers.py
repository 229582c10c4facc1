"""The denoisers that are compared: what their config files say, and inputs of one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.keys import flux_key_map
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.runtime.models.dits.wan.keys import wan_key_map
from multimodal_gen.runtime.models.dits.wan.model import WanTransformer
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.keys import z_image_key_map
from multimodal_gen.runtime.models.dits.z_image.model import ZImageTransformer
from multimodal_gen.runtime.pipelines.native import NativeTransformer

BothInputs = tuple[dict[str, Any], dict[str, Any]]
"""Keyword arguments of diffusers' module, and of ours but for the rotary table."""


@dataclass(frozen=True)
class RealDenoiser:
    """A published denoiser, or some of its layers."""

    what: str
    class_name: str
    """Class of diffusers."""
    config: Mapping[str, Any]
    inputs: Callable[[Any, torch.dtype], BothInputs]
    """Makes the inputs of one evaluation of a module of this class."""
    tiny: Mapping[str, Any]
    """Further values of the config, for tests."""
    native: NativeTransformer[Any] | None = None
    """None: the pipeline runs diffusers' module."""


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _unet_inputs(side: int) -> Callable[[Any, torch.dtype], BothInputs]:
    def inputs(module: Any, dtype: torch.dtype) -> BothInputs:
        config = module.config
        own: dict[str, Any] = {
            "sample": _random(2, config.in_channels, side, side).to(dtype),
            "timestep": torch.tensor(500.0),
            "encoder_hidden_states": _random(2, 77, config.cross_attention_dim).to(dtype),
        }
        if config.addition_embed_type == "text_time":
            ids = torch.tensor([[768.0, 768, 0, 0, 768, 768]] * 2)
            width = (
                config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            )
            pooled = _random(2, width).to(dtype)
            own["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
        return own, own

    return inputs


def _z_image_inputs(module: Any, dtype: torch.dtype) -> BothInputs:
    config = module.config
    latents = _random(1, config.in_channels, 64, 64).to(dtype)
    text, time = _random(1, 128, config.cap_feat_dim).to(dtype), torch.tensor([0.5])
    theirs = {"x": [latents[0][:, None]], "t": time, "cap_feats": [text[0]]}
    return theirs, {"latents": latents, "timestep": time, "encoder_hidden_states": text}


def _flux_inputs(module: Any, dtype: torch.dtype) -> BothInputs:
    config, side = module.config, 32
    both = {
        "hidden_states": _random(1, side * side, config.in_channels).to(dtype),
        "encoder_hidden_states": _random(1, 512, config.joint_attention_dim).to(dtype),
        "pooled_projections": _random(1, config.pooled_projection_dim).to(dtype),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
    }
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in (1, side, side)))
    ids = {"img_ids": places, "txt_ids": torch.zeros(512, 3)}
    return {**both, **ids}, {**both, "grids": [(side, side)]}


def _wan_inputs(module: Any, dtype: torch.dtype) -> BothInputs:
    config = module.config
    both = {
        "hidden_states": _random(1, config.in_channels, 3, 60, 104).to(dtype),
        "encoder_hidden_states": _random(1, 512, config.text_dim).to(dtype),
    }
    time = torch.tensor([500.0])
    return {**both, "timestep": time}, {**both, "timestep": time[:, None]}


_SD = {"sample_size": 64, "cross_attention_dim": 768}
_XL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_TINY_UNET = {"norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 32}

REAL_DENOISERS: Mapping[str, RealDenoiser] = {
    "sd15": RealDenoiser(
        what="Stable Diffusion 1.5, 512x512",
        class_name="UNet2DConditionModel",
        config=_SD,
        inputs=_unet_inputs(64),
        tiny={**_TINY_UNET, "block_out_channels": (8, 8, 8, 8)},
    ),
    "sdxl": RealDenoiser(
        what="Stable Diffusion XL, 768x768",
        class_name="UNet2DConditionModel",
        config=_XL,
        inputs=_unet_inputs(96),
        tiny={
            **_TINY_UNET,
            "block_out_channels": (8, 8, 8),
            "attention_head_dim": (1, 1, 2),
            "transformer_layers_per_block": 1,
        },
    ),
    "z_image": RealDenoiser(
        what="Z-Image, 512x512, 2 of 30 layers and the refiners",
        class_name="ZImageTransformer2DModel",
        config={"n_layers": 2, "axes_lens": [1536, 512, 512]},
        inputs=_z_image_inputs,
        tiny={
            "dim": 64,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 32,
            "axes_dims": [8, 12, 12],
        },
        native=NativeTransformer(ZImageConfig, ZImageTransformer, z_image_key_map),
    ),
    "flux": RealDenoiser(
        what="FLUX.1, 512x512, 1 of 19 and 2 of 38 layers",
        class_name="FluxTransformer2DModel",
        config={"num_layers": 1, "num_single_layers": 2, "guidance_embeds": True},
        inputs=_flux_inputs,
        tiny={
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
        native=NativeTransformer(FluxConfig, FluxTransformer, flux_key_map),
    ),
    "wan": RealDenoiser(
        what="Wan 2.1 1.3B, 832x480, 9 frames, 4 of 30 layers",
        class_name="WanTransformer3DModel",
        config={"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 4},
        inputs=_wan_inputs,
        tiny={"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "text_dim": 32},
        native=NativeTransformer(WanConfig, WanTransformer, wan_key_map),
    ),
}
