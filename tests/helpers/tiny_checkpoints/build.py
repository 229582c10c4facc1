"""Write one of the tiny checkpoints."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from . import schedulers
from .cogvideox import COGVIDEOX_1_5, COGVIDEOX_5B, cogvideox_pipeline
from .flux import flux_pipeline
from .flux2 import flux2_klein_pipeline
from .hunyuan_video import hunyuan_video_pipeline
from .library_pipelines import latte_pipeline, lumina2_pipeline, pixart_alpha_pipeline
from .ltx import ltx_pipeline
from .pixart_sigma import pixart_sigma_pipeline
from .qwen_image import qwen_image_edit_pipeline, qwen_image_pipeline
from .sana import sana_pipeline
from .stable_diffusion import sd15_pipeline, sdxl_pipeline
from .stable_diffusion_3 import SD35, sd3_pipeline
from .wan import wan_i2v_pipeline, wan_pipeline, wan_ti2v_pipeline
from .weights import fill
from .z_image import z_image_pipeline

_RECIPES: dict[str, tuple[Callable[..., Any], schedulers.Config]] = {
    "flux-dev": (partial(flux_pipeline, guidance_embeds=True), schedulers.FLUX_DEV),
    "flux-schnell": (partial(flux_pipeline, guidance_embeds=False), schedulers.FLUX_SCHNELL),
    "flux2-klein": (partial(flux2_klein_pipeline, is_distilled=True), schedulers.FLUX_DEV),
    "flux2-klein-base": (partial(flux2_klein_pipeline, is_distilled=False), schedulers.FLUX_DEV),
    "zimage": (z_image_pipeline, schedulers.Z_IMAGE_TURBO),
    "sd15": (sd15_pipeline, schedulers.SD15),
    "sdxl": (sdxl_pipeline, schedulers.SDXL),
    "sd15-inpainting": (partial(sd15_pipeline, inpainting=True), schedulers.SD15),
    "sdxl-inpainting": (partial(sdxl_pipeline, inpainting=True), schedulers.SDXL),
    "sd3": (sd3_pipeline, schedulers.SD3),
    "sd35": (partial(sd3_pipeline, **SD35), schedulers.SD3),
    "wan": (wan_pipeline, schedulers.WAN),
    "wan-i2v": (partial(wan_i2v_pipeline, clip=True), schedulers.WAN),
    "wan22": (partial(wan_pipeline, boundary_ratio=0.875), schedulers.WAN),
    "wan22-i2v": (partial(wan_i2v_pipeline, boundary_ratio=0.9), schedulers.WAN),
    "wan22-ti2v": (wan_ti2v_pipeline, schedulers.WAN),
    "pixart-sigma": (pixart_sigma_pipeline, schedulers.PIXART_SIGMA),
    "qwenimage": (qwen_image_pipeline, schedulers.QWEN_IMAGE),
    "sana": (sana_pipeline, schedulers.SANA),
    "hunyuan-video": (hunyuan_video_pipeline, schedulers.HUNYUAN_VIDEO),
    "ltx": (ltx_pipeline, schedulers.LTX),
    "cogvideox": (cogvideox_pipeline, schedulers.COGVIDEOX),
    "pixart-alpha": (pixart_alpha_pipeline, schedulers.PIXART_SIGMA),
    "latte": (latte_pipeline, schedulers.LATTE),
    "lumina2": (lumina2_pipeline, schedulers.LUMINA2),
}
_VARIANTS: dict[str, tuple[Callable[..., Any], schedulers.Config]] = {
    "qwenimage-edit": (qwen_image_edit_pipeline, schedulers.QWEN_IMAGE),
    "qwenimage-edit-plus": (
        partial(qwen_image_edit_pipeline, plus=True),
        schedulers.QWEN_IMAGE,
    ),
    "flux-kontext": (
        partial(flux_pipeline, guidance_embeds=True, kind=diffusers.FluxKontextPipeline),
        schedulers.FLUX_DEV,
    ),
    "flux-fill": (
        partial(
            flux_pipeline, guidance_embeds=True, kind=diffusers.FluxFillPipeline, in_channels=384
        ),
        schedulers.FLUX_DEV,
    ),
    "sd3-without-t5": (partial(sd3_pipeline, with_t5=False), schedulers.SD3),
    "ltx-0.9.1": (partial(ltx_pipeline, timestep_conditioning=True), schedulers.LTX),
    "cogvideox-5b": (partial(cogvideox_pipeline, **COGVIDEOX_5B), schedulers.COGVIDEOX_5B),
    "cogvideox-1.5": (partial(cogvideox_pipeline, **COGVIDEOX_1_5), schedulers.COGVIDEOX_5B),
}
"""What differs from one above in a way that only tests of its family look at."""
NAMES = tuple(_RECIPES)
_PUBLISHED = {"T5Tokenizer": "T5TokenizerFast", "PictureProcessor": "Qwen2VLProcessor"}


def build(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    shard_bytes: str | None = None,
    heads: int = 4,
    scheduler: Mapping[str, Any] | None = None,
    transformer: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint `name` (of `NAMES`, or a variant) to `folder`, and return the folder.

    Args:
        seed: of the weights.
        dtype: that the weights are stored in; they are drawn in float32 and then rounded.
        variant: goes into the weights' file names, as in `model.fp16.safetensors`.
        shard_bytes: largest size of a weight file, such as "50KB"; bigger components are split and
            get a `*.safetensors.index.json`.
        heads: attention heads of the denoiser. FLUX and Wan get wider with them.
        scheduler: the scheduler config in place of the name's own; `_class_name` says which class.
        transformer: entries of its config in place of the name's own, such as how many layers.
    """
    make, own_scheduler = {**_RECIPES, **_VARIANTS}[name]
    config = dict(own_scheduler if scheduler is None else scheduler)
    scheduler_class = getattr(diffusers, config["_class_name"])
    pipeline = make(scheduler_class.from_config(config), heads=heads)
    if transformer:
        own = pipeline.transformer
        pipeline.register_modules(transformer=own.from_config({**own.config, **transformer}))
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            fill(module, component, seed, dtype)
    pipeline.save_pretrained(folder, variant=variant, max_shard_size=shard_bytes)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2))
    _name_as_published(folder / "model_index.json")
    return folder


def _name_as_published(path: Path) -> None:
    """Checkpoints on the hub say `T5TokenizerFast`, which transformers 5 keeps as an alias, and
    `Qwen2VLProcessor`, which can't be made here."""
    index = json.loads(path.read_text())
    for name, value in index.items():
        if isinstance(value, list) and value[1] in _PUBLISHED:
            index[name] = ["transformers", _PUBLISHED[value[1]]]
    path.write_text(json.dumps(index, indent=2))
