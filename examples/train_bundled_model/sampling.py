"""Pictures from the finished model, made by diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import FluxPipeline
from drawing import NATIVE

BATCH = 32


class Settings(NamedTuple):
    """Of a call of the pipeline."""

    steps: int = 20
    true_cfg: float = 1.5
    """Against the empty prompt. 1 for none."""
    length: int = 16
    """Tokens to which the text is padded."""
    height: int = NATIVE[0]
    width: int = NATIVE[1]


DEFAULT = Settings()


def load(model: Path) -> FluxPipeline:
    """In float32."""
    pipeline = FluxPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def draw(
    pipeline: FluxPipeline, prompts: list[str], seeds: list[int], settings: Settings = DEFAULT
) -> np.ndarray:
    """One picture a prompt: RGB, uint8 [n, height, width, 3]."""
    pictures = []
    for start in range(0, len(prompts), BATCH):
        said = prompts[start : start + BATCH]
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + BATCH]]
        made = pipeline(
            said,
            negative_prompt=[""] * len(said) if settings.true_cfg > 1 else None,
            true_cfg_scale=settings.true_cfg,
            height=settings.height,
            width=settings.width,
            num_inference_steps=settings.steps,
            max_sequence_length=settings.length,
            generator=noise,
            output_type="np",
        ).images
        pictures.append((made * 255).round().astype(np.uint8))
    return np.concatenate(pictures)
