"""VAEs under the names of their authors, made from folders in diffusers layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from full_checkpoints import vae
from single_files import Tensors, fused, renamed, weights


def flux2(folder: Path) -> Tensors:
    table = {"post_quant_conv": "decoder.post_quant_conv"}
    moved = renamed(vae(folder), table)
    return {
        re.sub("^quant_conv", "encoder.quant_conv", name): tensor for name, tensor in moved.items()
    }


def hunyuan_video(folder: Path) -> Tensors:
    """As ComfyUI has it: attention as convolutions in three dimensions."""
    return {
        name: tensor[..., None] if ".attn_1." in name and tensor.dim() == 4 else tensor
        for name, tensor in vae(folder).items()
    }


_WAN = {
    "conv_in": "conv1",
    "conv_out": "head.2",
    "norm_out": "head.0",
    "mid_block.resnets.0": "middle.0",
    "mid_block.attentions.0": "middle.1",
    "mid_block.resnets.1": "middle.2",
    "norm1.gamma": "residual.0.gamma",
    "norm2.gamma": "residual.3.gamma",
    "conv_shortcut": "shortcut",
    "post_quant_conv": "conv2",
    "quant_conv": "conv1",
}
_CONVOLUTIONS = re.compile(r"((?:down_blocks|resnets|middle)\.\d+)\.conv([12])\.")


def wan(folder: Path) -> Tensors:
    return wan_vae(weights(folder, "vae"), vae_config(folder))


def wan_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """2.1's, whose decoder has one list of resnets and upsamplers."""
    layers = config["num_res_blocks"] + 1
    found = {}
    for name, tensor in _wan_names(tensors).items():
        if up := re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.", name):
            at = layers if up[2] == "upsamplers" else int(up[3])
            name = f"decoder.upsamples.{int(up[1]) * (layers + 1) + at}.{name[up.end() :]}"
        found[name.replace("down_blocks", "downsamples")] = tensor
    return found


def wan_2_2(folder: Path) -> Tensors:
    """2.2's, with lists within lists."""
    config = vae_config(folder)
    found = {}
    for name, tensor in _wan_names(weights(folder, "vae")).items():
        half, way, layers = (
            ("encoder", "down", config["num_res_blocks"])
            if name.startswith("encoder")
            else ("decoder", "up", config["num_res_blocks"] + 1)
        )
        if level := re.match(
            rf"{half}\.{way}_blocks\.(\d+)\.(resnets\.(\d+)|{way}sampler)\.", name
        ):
            at = level[3] or layers
            name = f"{half}.{way}samples.{level[1]}.{way}samples.{at}.{name[level.end() :]}"
        found[name] = tensor
    return found


def _wan_names(tensors: Tensors) -> Tensors:
    found = {}
    for name, tensor in tensors.items():
        for theirs, ours in _WAN.items():
            name = name.replace(theirs, ours)
        name = _CONVOLUTIONS.sub(lambda m: f"{m[1]}.residual.{2 if m[2] == '1' else 6}.", name)
        found[name] = tensor
    return found


def dc(folder: Path) -> Tensors:
    return dc_vae(weights(folder, "vae"))


def dc_vae(tensors: Tensors) -> Tensors:
    attending = {name.partition(".attn.")[0] for name in tensors if ".attn.to_q." in name}
    for block in attending:
        parts = tuple(f"{block}.attn.to_{x}." for x in "qkv")
        tensors = fused(tensors, f"{block}.attn.qkv.conv.", parts)
    table = {
        "to_qkv_multiscale.0.proj_in": "aggreg.0.0",
        "to_qkv_multiscale.0.proj_out": "aggreg.0.1",
        "attn.to_out": "attn.proj.conv",
        "attn.norm_out": "attn.proj.norm",
        ".attn.": ".context_module.main.",
        "conv_out.conv_depth": "local_module.main.depth_conv.conv",
        "conv_out.conv_inverted": "local_module.main.inverted_conv.conv",
        "conv_out.conv_point": "local_module.main.point_conv.conv",
        "conv_out.norm": "local_module.main.point_conv.norm",
        "encoder.conv_in": "encoder.project_in.conv",
        "encoder.conv_out": "encoder.project_out.main.op_list.0.conv",
        "decoder.conv_in": "decoder.project_in.main.conv",
        "decoder.norm_out": "decoder.project_out.main.op_list.0",
        "decoder.conv_out": "decoder.project_out.main.op_list.2.conv",
    }
    found = {}
    for name, tensor in renamed(tensors, table).items():
        name = re.sub(r"(?:down|up)_blocks\.(\d+)\.(\d+)\.", r"stages.\1.op_list.\2.", name)
        name = re.sub(r"op_list\.(\d+)\.(conv\d?)\.", r"op_list.\1.main.\2.conv.", name)
        name = re.sub(r"op_list\.(\d+)\.norm\.", r"op_list.\1.main.conv2.norm.", name)
        convolves = ".qkv." in name or ".proj.conv." in name
        found[name] = tensor[:, :, None, None] if convolves else tensor
    return found


def ltx(folder: Path) -> Tensors:
    return ltx_vae(weights(folder, "vae"), vae_config(folder))


def vae_config(folder: Path) -> Any:
    return json.loads((folder / "vae/config.json").read_text())


def ltx_vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Its blocks in one list for each half: resnets, samplers, and resnets that widen."""
    places: dict[str, str] = {}
    down = len(config["down_block_types"])
    _list(places, tensors, "encoder.down_blocks", range(down), ("", "downsamplers.0.", "conv_out."))
    places["encoder.mid_block."] = f"encoder.down_blocks.{len(places)}."
    before = len(places)
    places["decoder.mid_block."] = "decoder.up_blocks.0."
    up = len(config["decoder_block_out_channels"])
    parts = ("conv_in.", "upsamplers.0.", "")
    _list(places, tensors, "decoder.up_blocks", range(up), parts, before)
    found = {}
    for name, tensor in tensors.items():
        theirs = max((p for p in places if name.startswith(p)), key=len, default=None)
        name = name if theirs is None else places[theirs] + name[len(theirs) :]
        found[name] = tensor
    table = {
        "resnets.": "res_blocks.",
        "conv_shortcut.conv.": "conv_shortcut.",
        "norm3.": "norm3.norm.",
        "latents_mean": "per_channel_statistics.mean-of-means",
        "latents_std": "per_channel_statistics.std-of-means",
        "decoder.time_embedder.": "decoder.last_time_embedder.",
        "decoder.scale_shift_table": "decoder.last_scale_shift_table",
    }
    unused = {"per_channel_statistics.mean-of-stds": torch.ones(4)}
    return renamed(found, table) | unused


def _list(
    places: dict[str, str],
    tensors: Tensors,
    where: str,
    blocks: range,
    parts: tuple[str, ...],
    before: int = 0,
) -> None:
    for block in blocks:
        for part in parts:
            theirs = f"{where}.{block}.{part}"
            own = f"{theirs}resnets." if not part else theirs
            if any(name.startswith(own) for name in tensors):
                places[theirs] = f"{where}.{len(places) - before}."


ORIGINAL_VAES: Mapping[str, Callable[[Path], Tensors]] = {
    "cogvideox": vae,
    "flux-dev": vae,
    "chroma": vae,
    "flux2-klein": flux2,
    "flux2-dev": flux2,
    "hunyuan-video": hunyuan_video,
    "ltx": ltx,
    "ltx-0.9.1": ltx,
    "ltx2": ltx,
    "pixart-sigma": vae,
    "qwenimage": wan,
    "sana": dc,
    "sd15": vae,
    "sd3": vae,
    "sdxl": vae,
    "wan": wan,
    "wan-vace": wan,
    "wan-i2v": wan,
    "wan22": wan,
    "wan22-ti2v": wan_2_2,
    "zimage": vae,
}
"""Each tiny checkpoint's VAE under its authors' names."""
