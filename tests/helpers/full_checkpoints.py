"""Stable Diffusion as one file, with text encoders and VAE, made from a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from single_files import COMFY, Tensors, flux, fused, prefixed, renamed, sd3, weights
from torch import Tensor


def sd15(folder: Path) -> Tensors:
    return {
        **prefixed(unet(folder), COMFY),
        **prefixed(vae(folder), "first_stage_model."),
        **prefixed(_clip(folder, "text_encoder"), "cond_stage_model.transformer."),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "alphas_cumprod": torch.ones(1000),
        "model_ema.decay": torch.ones(()),
    }


def sd2(folder: Path) -> Tensors:
    """With the text encoder as OpenCLIP names it, and a projection that nothing uses."""
    return {
        **prefixed(unet(folder), COMFY),
        **prefixed(vae(folder), "first_stage_model."),
        **prefixed(_open_clip(folder, "text_encoder"), "cond_stage_model.model."),
        "cond_stage_model.model.text_projection": torch.ones(32, 32),
    }


def sdxl(folder: Path) -> Tensors:
    return {
        **prefixed(unet(folder), COMFY),
        **prefixed(vae(folder), "first_stage_model."),
        **prefixed(_clip(folder, "text_encoder"), "conditioner.embedders.0.transformer."),
        **prefixed(_open_clip(folder, "text_encoder_2"), "conditioner.embedders.1.model."),
        "conditioner.embedders.1.model.logit_scale": torch.ones(()),
    }


def sd3_with_encoders(folder: Path) -> Tensors:
    encoders = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
    return {
        **prefixed(sd3(folder), COMFY),
        **prefixed(vae(folder), "first_stage_model."),
        **_encoders(folder, encoders),
    }


def flux_with_encoders(folder: Path) -> Tensors:
    return {
        **prefixed(flux(folder), COMFY),
        **prefixed(vae(folder), "vae."),
        **_encoders(folder, {"clip_l": "text_encoder", "t5xxl": "text_encoder_2"}),
        "text_encoders.clip_l.logit_scale": torch.ones(()),
    }


def _encoders(folder: Path, components: Mapping[str, str]) -> Tensors:
    """As ComfyUI names them."""
    return {
        f"text_encoders.{name}.transformer.{key}": tensor
        for name, component in components.items()
        for key, tensor in _clip(folder, component).items()
    }


def unet(folder: Path) -> Tensors:
    config = json.loads((folder / "unet/config.json").read_text())
    layers = config["layers_per_block"] + 1
    tensors = weights(folder, "unet")
    table = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for block in range(len(config["block_out_channels"])):
        for layer in range(layers):
            down, up = 1 + block * layers + layer, block * layers + layer
            for place, kind in enumerate(("resnets", "attentions")):
                table[f"down_blocks.{block}.{kind}.{layer}."] = f"input_blocks.{down}.{place}."
                table[f"up_blocks.{block}.{kind}.{layer}."] = f"output_blocks.{up}.{place}."
        attends = any(name.startswith(f"up_blocks.{block}.attentions") for name in tensors)
        last, place = (block + 1) * layers, 2 if attends else 1
        table |= {
            f"down_blocks.{block}.downsamplers.0.conv": f"input_blocks.{last}.0.op",
            f"up_blocks.{block}.upsamplers.0.conv": f"output_blocks.{last - 1}.{place}.conv",
        }
    resnet = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    blocks = {n: t for n, t in tensors.items() if ".resnets." in n}
    others = {n: t for n, t in tensors.items() if ".resnets." not in n}
    return renamed(renamed(blocks, resnet) | others, table)


def vae(folder: Path) -> Tensors:
    return kl_vae(weights(folder, "vae"))


def kl_vae(tensors: Tensors) -> Tensors:
    blocks = 1 + max(int(n) for name in tensors for n in re.findall(r"up_blocks\.(\d+)", name))
    table = {
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1",
        ".to_q.": ".q.",
        ".to_k.": ".k.",
        ".to_v.": ".v.",
        ".to_out.0.": ".proj_out.",
        ".group_norm.": ".norm.",
        "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
        "down_blocks.": "down.",
        ".resnets.": ".block.",
        ".downsamplers.0.": ".downsample.",
        ".upsamplers.0.": ".upsample.",
        **{f"up_blocks.{i}.": f"up.{blocks - 1 - i}." for i in range(blocks)},
    }
    convolved = renamed(tensors, table)
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.dim() == 2 else tensor
        for name, tensor in convolved.items()
    }


def _clip(folder: Path, component: str) -> Tensors:
    """With the prefix that transformers 5 has left out of one of the two classes."""
    tensors = weights(folder, component)
    flat = "embeddings.token_embedding.weight" in tensors
    return prefixed(tensors, "text_model.") if flat else tensors


def _open_clip(folder: Path, component: str) -> Tensors:
    return dict(_renamed_clip(_clip(folder, component)))


def _renamed_clip(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        parts = tuple(f".self_attn.{x}_proj.{kind}" for x in "qkv")
        tensors = fused(tensors, f".attn.in_proj_{kind}", parts)
    table = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.final_layer_norm": "ln_final",
        "text_model.encoder.layers": "transformer.resblocks",
        "layer_norm": "ln_",
        ".self_attn.": ".attn.",
        ".fc1.": ".c_fc.",
        ".fc2.": ".c_proj.",
    }
    for name, tensor in renamed(tensors, table).items():
        if name == "text_projection.weight":
            yield "text_projection", tensor.T
        else:
            yield name, tensor
