"""Selects the converter to diffusers' names for a component in a single file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from diffusers.loaders import single_file_utils as library
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.original import flux, pixart, sana
from multimodal_gen.runtime.loader.original.encoders.transformers_names import (
    LANGUAGE_MODELS,
    language_model_names,
    mistral3_names,
    qwen3_vl_model_names,
    qwen3_vl_names,
    t5_names,
)
from multimodal_gen.runtime.loader.original.ltx2 import ltx2_names
from multimodal_gen.runtime.loader.original.table import converted
from multimodal_gen.runtime.loader.original.vaes.dc import dc_names
from multimodal_gen.runtime.loader.original.vaes.kl import kl_names
from multimodal_gen.runtime.loader.original.vaes.ltx import ltx_vae_names
from multimodal_gen.runtime.loader.original.vaes.wan import wan_vae_names
from multimodal_gen.runtime.loader.single_file.conversion import Converter
from multimodal_gen.runtime.loader.single_file.flux_names import flux_names

_UNET = "model.diffusion_model."
_OPEN_CLIP = {
    "CLIPTextModel": "cond_stage_model.model.",
    "CLIPTextModelWithProjection": "conditioner.embedders.1.model.",
}
"""OpenCLIP text encoders of Stable Diffusion 2 and XL; the last layer of the former is unused."""

_CONVERTERS: Mapping[str, Converter] = {
    **dict.fromkeys(("AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLHunyuanVideo"), kl_names),
    "AutoencoderKLCogVideoX": partial(kl_names, norm_out="norm_out"),
    "AutoencoderDC": dc_names,
    "ChromaTransformer2DModel": partial(flux_names, names=flux.CHROMA_NAMES),
    "PixArtTransformer2DModel": partial(converted, names=pixart.NAMES),
    "Transformer2DModel": partial(converted, names=pixart.NAMES),  # PixArt's old name
    "SanaTransformer2DModel": partial(converted, names=sana.NAMES),
    "LTX2VideoTransformer3DModel": ltx2_names,
    **dict.fromkeys(("AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video"), ltx_vae_names),
    "AutoencoderKLQwenImage": wan_vae_names,
    "AutoencoderKLQwenImage21": wan_vae_names,
    "AutoencoderKLWan": wan_vae_names,
    **dict.fromkeys(("CLIPVisionModel", "CLIPVisionModelWithProjection"), dict),
    **dict.fromkeys(("T5EncoderModel", "UMT5EncoderModel"), t5_names),
    **dict.fromkeys(LANGUAGE_MODELS, language_model_names),
    "Mistral3ForConditionalGeneration": mistral3_names,
    "Qwen3VLForConditionalGeneration": qwen3_vl_names,
    "Qwen3VLModel": qwen3_vl_model_names,
}


def converter_for(class_name: str, config: Mapping[str, Any]) -> Converter:
    """Converter for a class of diffusers or transformers and its config. Raises
    InvalidCheckpoint."""
    match class_name:
        case "FluxTransformer2DModel":
            return flux_names
        case "HunyuanVideoTransformer3DModel":
            return _hunyuan_video
        case "WanTransformer3DModel" | "WanVACETransformer3DModel":
            return _wan
        case "UNet2DConditionModel":
            return lambda tensors: library.convert_ldm_unet_checkpoint(
                {_UNET + name: tensor for name, tensor in tensors.items()}, dict(config)
            )
        case "CLIPTextModel" | "CLIPTextModelWithProjection":
            return partial(_clip_names, class_name=class_name, width=config.get("hidden_size"))
    if class_name in _CONVERTERS:
        return _CONVERTERS[class_name]
    known: Any = SINGLE_FILE_LOADABLE_CLASSES.get(class_name)
    if known is None:
        raise InvalidCheckpoint(f"{class_name}: no converter for its original names")
    return partial(known["checkpoint_mapping_fn"], config=dict(config))


def _hunyuan_video(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Split beforehand, by the file's own width, tensors that the library splits by the published
    one."""
    width = len(tensors["img_in.proj.weight"])
    for name in [name for name in tensors if ".linear1." in name]:
        joined = tensors.pop(name)
        parts = joined.split([width] * 3 + [len(joined) - 3 * width])
        for part, new in zip(parts, ("to_q", "to_k", "to_v"), strict=False):
            tensors[name.replace("linear1", f"attn.{new}")] = part
        tensors[name.replace("linear1", "proj_mlp")] = parts[-1]
    converted: Mapping[str, Tensor] = library.convert_hunyuan_video_transformer_to_diffusers(
        tensors
    )
    return converted


def _wan(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Add the tensors of the model for first and last frames, which the library omits."""
    positions = tensors.pop("img_emb.emb_pos", None)
    converted: dict[str, Tensor] = library.convert_wan_transformer_to_diffusers(tensors)
    if positions is not None:
        converted["condition_embedder.image_embedder.pos_embed"] = positions
    return converted


def _clip_names(
    tensors: dict[str, Tensor], *, class_name: str, width: object
) -> Mapping[str, Tensor]:
    """CLIP's text encoder in transformers' names or OpenCLIP's."""
    if not any(".resblocks." in name for name in tensors):
        return _projected(tensors)
    prefix = _OPEN_CLIP[class_name]
    encoder = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    converted: Mapping[str, Tensor] = library.convert_open_clip_checkpoint(encoder, named, prefix)
    return converted


def _projected(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the projection as transformers has it; older tools of ComfyUI saved OpenCLIP's."""
    projection = tensors.pop("text_projection", None)
    if projection is not None:
        tensors["text_projection.weight"] = projection.T
    return tensors
