"""Components and options of one of diffusers' pipelines."""

from __future__ import annotations

import inspect
import math
from typing import Any

from multimodal_gen.checkpoints.config_numbers import check_scheduler
from multimodal_gen.checkpoints.files import check_config, read_json
from multimodal_gen.configs.families.library_pipelines import LibraryPipeline
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.loader.allowed import ALLOWED
from multimodal_gen.runtime.loader.checkpoint import Checkpoint
from multimodal_gen.runtime.loader.pretrained import (
    PictureProcessor,
    complaints,
    library_class,
)
from multimodal_gen.runtime.pipelines.fallback.signature import CallSignature

_NEVER_LOADED = (
    "safety_checker",
    "watermarker",
    "pe",
    "pe_tokenizer",
    "prompt_enhancer",
    "prompt_enhancer_head",
    "duration_head",
)
"""Components that no picture needs: filters, and what would rewrite prompts."""
_OF_IP_ADAPTERS = ("feature_extractor", "image_encoder")
_OFF = (
    "requires_safety_checker",
    "add_watermarker",
    "enable_safety_checker",
)
"""Options of constructors that ask for such components."""
_SETTINGS = {"scheduler": "scheduler_config.json", "guider": "guider_config.json"}
"""Kinds of components that are settings only, with their files."""
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
_TEMPORAL = (
    "vae_scale_factor_temporal",
    "vae_temporal_compression_ratio",
    "vae_scale_factor_temporal_compression",
)


def is_loaded(library_pipeline: type[Any], name: str) -> bool:
    """True if the pipeline has this component and may use it for a request."""
    known = inspect.signature(library_pipeline).parameters
    if name not in known or name in (*_NEVER_LOADED, "scheduler"):
        return False
    if name not in _OF_IP_ADAPTERS:
        return True
    filters = "safety_checker" in known and name in library_pipeline._optional_components
    return not filters and "ip_adapter_image" not in _call(library_pipeline)


def _call(library_pipeline: type[Any]) -> Any:
    return inspect.signature(library_pipeline.__call__).parameters


def load_part(checkpoint: Checkpoint, name: str, context: RankContext) -> Any:
    """Load a component; those that are settings only by their own class."""
    library, class_name = checkpoint.components[name]
    kind = ALLOWED[library, class_name]
    if kind in _SETTINGS:
        path = f"{name}/{_SETTINGS[kind]}"
        config = check_config(read_json(checkpoint.folder, path), path)
        check_scheduler(config, path)
        with complaints(path):
            return library_class(library, class_name).from_config(config)
    part = checkpoint.load(name, context.dtype, context.device)
    return _callable(part, class_name) if isinstance(part, PictureProcessor) else part


def _callable(parts: PictureProcessor, class_name: str) -> Any:
    """The library's processor of these parts. Its part for videos would need torchvision."""
    kind = library_class("transformers", class_name)

    def get_attributes(cls: Any) -> list[str]:
        return ["image_processor", "tokenizer"]

    own = type(class_name, (kind,), {"get_attributes": classmethod(get_attributes)})
    return own(
        image_processor=parts.image_processor,
        tokenizer=parts.tokenizer,
        chat_template=getattr(parts.tokenizer, "chat_template", None),
    )


def guidance_of(checkpoint: Checkpoint, signature: CallSignature) -> float | None:
    """Default guidance scale: that of its guider, or of the call."""
    if "guider" not in checkpoint.components:
        default: float | None = signature.default("guidance_scale", float)
        return default
    path = f"guider/{_SETTINGS['guider']}"
    scale = check_config(read_json(checkpoint.folder, path), path).get("guidance_scale")
    return float(scale) if isinstance(scale, int | float) else None


def options_of(library_pipeline: type[Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Keyword arguments of the constructor besides its components."""
    known = inspect.signature(library_pipeline).parameters
    options = {key: value for key, value in checkpoint.options.items() if key in known}
    return {**options, **{name: False for name in _OFF if name in known}}


def trained_multiples(stock: Any, entry: LibraryPipeline, num_frames: int) -> tuple[int, int]:
    """Multiples that sides must be of, and numbers of frames but one.

    `num_frames` is the default: a multiple that it does not follow is none.
    """
    spatial = _number(stock, _SPATIAL, 8)
    patch = _patch(stock)
    shown = getattr(getattr(stock, "image_processor", None), "config", {})
    side = max(spatial * patch, int(shown.get("vae_scale_factor", 1)))
    side = math.lcm(side, entry.size_multiple)
    temporal = _number(stock, _TEMPORAL, 1) if entry.fps else 1
    return side, temporal if (num_frames - 1) % temporal == 0 else 1


def _number(stock: Any, names: tuple[str, ...], otherwise: int) -> int:
    found = (getattr(stock, name, None) for name in names)
    return next((int(each) for each in found if isinstance(each, int)), otherwise)


def _patch(stock: Any) -> int:
    """Latents a side of a token."""
    transformer = getattr(stock, "transformer", None)
    patch = getattr(transformer, "config", {}).get("patch_size", 1)
    if isinstance(patch, list | tuple):
        patch = patch[-1]
    return patch if isinstance(patch, int) and patch > 0 else 1
