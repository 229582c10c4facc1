"""Write one of the tiny checkpoints."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from . import schedulers
from .flux import flux_pipeline
from .stable_diffusion import sd15_pipeline, sdxl_pipeline
from .stable_diffusion_3 import SD35, sd3_pipeline
from .wan import wan_pipeline
from .weights import fill

_RECIPES: dict[str, tuple[Callable[..., Any], schedulers.Config]] = {
    "flux-dev": (partial(flux_pipeline, guidance_embeds=True), schedulers.FLUX_DEV),
    "flux-schnell": (partial(flux_pipeline, guidance_embeds=False), schedulers.FLUX_SCHNELL),
    "sd15": (sd15_pipeline, schedulers.SD15),
    "sdxl": (sdxl_pipeline, schedulers.SDXL),
    "sd3": (sd3_pipeline, schedulers.SD3),
    "sd3-without-t5": (partial(sd3_pipeline, with_t5=False), schedulers.SD3),
    "sd35": (partial(sd3_pipeline, **SD35), schedulers.SD3),
    "wan": (wan_pipeline, schedulers.WAN),
}
NAMES = tuple(_RECIPES)


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
) -> Path:
    """Write the checkpoint `name` (one of `NAMES`) to `folder`, and return the folder.

    Args:
        seed: of the weights.
        dtype: that the weights are stored in; they are drawn in float32 and then rounded.
        variant: goes into the weights' file names, as in `model.fp16.safetensors`.
        shard_bytes: largest size of a weight file, such as "50KB"; bigger components are split and
            get a `*.safetensors.index.json`.
        heads: attention heads of the denoiser. FLUX and Wan get wider with them.
        scheduler: the scheduler config in place of the name's own; `_class_name` says which class.
    """
    make, own_scheduler = _RECIPES[name]
    config = dict(own_scheduler if scheduler is None else scheduler)
    scheduler_class = getattr(diffusers, config["_class_name"])
    pipeline = make(scheduler_class.from_config(config), heads=heads)
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            fill(module, component, seed, dtype)
    pipeline.save_pretrained(folder, variant=variant, max_shard_size=shard_bytes)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2))
    _name_tokenizers_as_published(folder / "model_index.json")
    return folder


def _name_tokenizers_as_published(index: Path) -> None:
    """Checkpoints on the hub say `T5TokenizerFast`, which transformers 5 keeps as an alias."""
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"'))
