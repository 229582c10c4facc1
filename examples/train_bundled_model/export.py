"""Writes the finished folder: a FluxPipeline in diffusers' layout, bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import words
from denoiser import Painter
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from drawing import SIZES
from safetensors.torch import load_file, save_file
from sampling import DEFAULT
from tokenizers import Tokenizer

LARGEST = 16_000_000
"""Bytes, in all."""
INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    # The name that all versions of transformers know.
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export(vae: AutoencoderKL, painter: Painter, tokenizer: Tokenizer, out: Path) -> None:
    """Write all components into `out`. Raises ValueError when they are too large."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("text_encoder", "text_encoder_2", "transformer"):
        getattr(painter, name).to(torch.bfloat16).save_pretrained(out / name)
    vae.to(torch.bfloat16).save_pretrained(out / "vae")
    _prefix(out / "text_encoder" / "model.safetensors")
    FlowMatchEulerDiscreteScheduler().save_pretrained(out / "scheduler")
    words.save(tokenizer, out / "tokenizer", words.LONGEST)
    words.save(tokenizer, out / "tokenizer_2", 512)
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    defaults = {
        "width": DEFAULT.width,
        "height": DEFAULT.height,
        "num_inference_steps": DEFAULT.steps,
        "true_cfg_scale": DEFAULT.true_cfg,
        "negative_prompt": "",
        "max_sequence_length": DEFAULT.length,
        "limits": {"smallest_side": min(map(min, SIZES)), "largest_side": max(map(max, SIZES))},
    }
    (out / "generation_defaults.json").write_text(json.dumps(defaults, indent=2) + "\n")
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if size > LARGEST:
        raise ValueError(f"the folder has {size} bytes, more than {LARGEST}")


def _prefix(file: Path) -> None:
    """Give CLIP's weights the names that published checkpoints have, and all versions read."""
    tensors = {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
