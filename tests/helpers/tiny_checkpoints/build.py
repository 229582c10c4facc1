"""Write one of the tiny checkpoints."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from .families import CHECKPOINTS, VARIANTS
from .weights import GAINS, fill

NAMES = tuple(CHECKPOINTS)
_PUBLISHED = {
    "T5Tokenizer": "T5TokenizerFast",
    "PictureProcessor": "Qwen2VLProcessor",
    "PromptProcessor": "Qwen3VLProcessor",
    "Qwen3PictureProcessor": "Qwen3VLProcessor",
    "MistralProcessor": "PixtralProcessor",
}


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
    described = {**CHECKPOINTS, **VARIANTS}[name]
    config = dict(described.scheduler if scheduler is None else scheduler)
    scheduler_class = getattr(diffusers, config["_class_name"])
    pipeline = described.pipeline(scheduler_class.from_config(config), heads=heads)
    if transformer:
        own = pipeline.transformer
        changed = {"transformer": own.from_config({**own.config, **transformer})}
        modular = isinstance(pipeline, diffusers.ModularPipeline)
        (pipeline.update_components if modular else pipeline.register_modules)(**changed)
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            fill(module, component, seed, dtype, {**GAINS, **described.gains})
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):
        pipeline.save_pretrained(str(folder), variant=variant, max_shard_size=shard_bytes)
    if (folder / "scheduler").is_dir():  # the blocks of some modular pipelines make theirs
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2))
    name_as_published(folder / pipeline.config_name)
    return folder


def name_as_published(path: Path) -> None:
    """Checkpoints on the hub say `T5TokenizerFast`, which transformers 5 keeps as an alias, and
    processors, which can't be made here."""
    index = json.loads(path.read_text())
    for value in index.values():
        if isinstance(value, list) and len(value) > 1 and value[1] in _PUBLISHED:
            value[:2] = ["transformers", _PUBLISHED[value[1]]]
        if isinstance(value, list) and isinstance(value[-1], dict):  # of a modular pipeline
            value[2] |= {"pretrained_model_name_or_path": "owner/name", "type_hint": value[:2]}
    path.write_text(json.dumps(index, indent=2))
