"""Which converter makes diffusers' names of a component's tensors in a single file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from diffusers.loaders import single_file_utils as library
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.single_file.conversion import Converter
from multimodal_gen.runtime.loader.single_file.flux_names import flux_names

_UNET = "model.diffusion_model."
_OPEN_CLIP = {
    "CLIPTextModel": "cond_stage_model.model.",
    "CLIPTextModelWithProjection": "conditioner.embedders.1.model.",
}
"""As Stable Diffusion 2 and XL have it: of the first, the last layer has no use."""


def converter_for(class_name: str, config: Mapping[str, Any]) -> Converter:
    """For a class of diffusers or transformers and its config. Raises InvalidCheckpoint."""
    match class_name:
        case "FluxTransformer2DModel":
            return flux_names
        case "HunyuanVideoTransformer3DModel":
            return _hunyuan_video
        case "WanTransformer3DModel":
            return _wan
        case "UNet2DConditionModel":
            return lambda tensors: library.convert_ldm_unet_checkpoint(
                {_UNET + name: tensor for name, tensor in tensors.items()}, dict(config)
            )
        case "AutoencoderKL":
            return lambda tensors: library.convert_ldm_vae_checkpoint(tensors, dict(config))
        case "CLIPTextModel" | "CLIPTextModelWithProjection":
            return partial(_clip_names, class_name=class_name, width=config.get("hidden_size"))
        case "T5EncoderModel":
            return dict
    known: Any = SINGLE_FILE_LOADABLE_CLASSES.get(class_name)
    if known is None:
        raise InvalidCheckpoint(f"{class_name}: its original names are not known")
    return partial(known["checkpoint_mapping_fn"], config=dict(config))


def _hunyuan_video(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """With what the library splits by the published width split before, by the file's own."""
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
    """With what the model for first and last frames has, which the library leaves out."""
    positions = tensors.pop("img_emb.emb_pos", None)
    converted: dict[str, Tensor] = library.convert_wan_transformer_to_diffusers(tensors)
    if positions is not None:
        converted["condition_embedder.image_embedder.pos_embed"] = positions
    return converted


def _clip_names(
    tensors: dict[str, Tensor], *, class_name: str, width: object
) -> Mapping[str, Tensor]:
    """CLIP's text encoder as transformers has it, or as OpenCLIP does."""
    if not any(".resblocks." in name for name in tensors):
        return tensors
    prefix = _OPEN_CLIP[class_name]
    encoder = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    converted: Mapping[str, Tensor] = library.convert_open_clip_checkpoint(encoder, named, prefix)
    return converted
