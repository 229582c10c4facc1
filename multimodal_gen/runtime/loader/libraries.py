"""The classes of diffusers and transformers that a checkpoint may name, and how each is loaded."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.files import check_config, inside, read_json, weight_files
from multimodal_gen.runtime.models.schedulers.registry import SOLVERS

logger = logging.getLogger(__name__)

Kind = Literal["diffusers", "transformers", "tokenizer", "scheduler", "native", "unused"]

_FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError)
"""What the libraries raise on broken files."""

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast")
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast")
SCHEDULERS = tuple(dict.fromkeys(spec.scheduler.__name__ for spec in SOLVERS.values()))

ALLOWED: Mapping[tuple[str, str], Kind] = {
    ("diffusers", "FluxTransformer2DModel"): "native",
    ("diffusers", "UNet2DConditionModel"): "diffusers",
    ("diffusers", "WanTransformer3DModel"): "diffusers",
    ("diffusers", "AutoencoderKL"): "diffusers",
    ("diffusers", "AutoencoderKLWan"): "diffusers",
    ("transformers", "CLIPTextModel"): "transformers",
    ("transformers", "CLIPTextModelWithProjection"): "transformers",
    ("transformers", "T5EncoderModel"): "transformers",
    ("transformers", "UMT5EncoderModel"): "transformers",
    **{("transformers", name): "tokenizer" for name in (*CLIP_TOKENIZERS, *T5_TOKENIZERS)},
    **{("diffusers", name): "scheduler" for name in SCHEDULERS},
    ("stable_diffusion", "StableDiffusionSafetyChecker"): "unused",
    ("transformers", "CLIPImageProcessor"): "unused",
    ("transformers", "CLIPFeatureExtractor"): "unused",
    ("transformers", "CLIPVisionModelWithProjection"): "unused",
}
"""(library, class) as model_index.json has them. Nothing else is ever imported for a checkpoint."""

WEIGHTS_STEM = {
    "native": "diffusion_pytorch_model",
    "diffusers": "diffusion_pytorch_model",
    "transformers": "model",
}


def load_tokenizer(root: Path, name: str, class_name: str) -> Any:
    """The tokenizer in folder `name`, by its class and without code of its own."""
    if inside(root, f"{name}/tokenizer_config.json").is_file():
        config_name = f"{name}/tokenizer_config.json"
        check_config(read_json(root, config_name), config_name)
    for file in inside(root, name).iterdir():
        inside(root, f"{name}/{file.name}")
    kind = getattr(_quiet("transformers"), class_name)
    try:
        return kind.from_pretrained(root / name, local_files_only=True, trust_remote_code=False)
    except _FAILURES as error:
        raise InvalidCheckpoint(f"{name}: {class_name}: {_first_line(error)}") from error


def load_module(
    root: Path, name: str, library: str, class_name: str, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    """The module in folder `name` by its library's own safe loader, checked before and after."""
    config_name = f"{name}/config.json"
    config = check_config(read_json(root, config_name), config_name)
    files = weight_files(root, name, WEIGHTS_STEM[library])
    if inside(root, f"{name}/adapter_config.json").exists():
        raise InvalidCheckpoint(
            f"{name}/adapter_config.json: adapters inside a checkpoint are not read"
        )
    kind = getattr(_quiet(library), class_name)
    options: dict[str, Any] = {"torch_dtype": dtype}
    if library == "transformers":
        options = {"dtype": dtype, "config": kind.config_class.from_dict(config)}
    try:
        module, info = kind.from_pretrained(
            root / name,
            use_safetensors=True,
            local_files_only=True,
            variant=files.variant,
            output_loading_info=True,
            **options,
        )
    except _FAILURES as error:
        raise InvalidCheckpoint(f"{name}: {class_name}: {_first_line(error)}") from error
    _check_keys(name, info)
    module = module.to(device).eval().requires_grad_(False)
    assert isinstance(module, torch.nn.Module)
    return module


def _quiet(library: str) -> Any:
    """The library, without bars and notes of its own on the terminal."""
    logs = importlib.import_module(f"{library}.utils.logging")
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    return importlib.import_module(library)


def _check_keys(name: str, info: Mapping[str, Any]) -> None:
    wrong = {
        what: sorted(str(key) for key in info.get(f"{what}_keys") or ())
        for what in ("missing", "mismatched")
    }
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {', '.join(keys[:8])}" for what, keys in wrong.items() if keys)
        raise InvalidCheckpoint(f"{name}: the weights don't fit config.json: {listed}")
    if info.get("unexpected_keys"):
        logger.warning("%s: weights without a place: %s", name, sorted(info["unexpected_keys"])[:8])


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
