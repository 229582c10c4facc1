"""Random IP-Adapters for tiny checkpoints, in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_checkpoints.weights import fill
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SIDE, FEATURES, EMBEDDED = 16, 24, 12
"""Pixels of a picture, and widths of the image encoder's states and embedding."""
HEADS, WIDTH = 2, 40
"""Of the resampler, whose heads are 64 wide."""

Draw = Callable[..., Tensor]


def write_adapter(folder: Path, denoiser: Any, kind: str, *, seed: int = 0) -> Path:
    """Write an adapter with its image encoder: plain, full, plus or faceid; for a UNet of diffusers
    or its FLUX transformer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    flux = hasattr(denoiser, "transformer_blocks")
    config = denoiser.config
    width = config.joint_attention_dim if flux else config.cross_attention_dim
    projection = _PROJECTIONS[kind](draw, width)
    prefix = "ip_adapter_proj_model" if flux else "image_proj"
    tensors = {f"{prefix}.{name}": each for name, each in projection.items()}
    tensors |= _of_blocks(denoiser, width, draw) if flux else _of_unet(denoiser, width, draw)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "ip-adapter.safetensors")
    _image_encoder().save_pretrained(folder / "image_encoder")
    return folder


def _image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=FEATURES,
        intermediate_size=2 * FEATURES,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=EMBEDDED,
        image_size=SIDE,
        patch_size=4,
    )
    encoder = CLIPVisionModelWithProjection(config)
    fill(encoder, "image_encoder", 0, torch.float32)
    return encoder.eval()


def _norm(width: int, draw: Draw) -> dict[str, Tensor]:
    return {"weight": 1 + 0.2 * draw(width), "bias": draw(width)}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": each for name, each in tensors.items()}


def _plain(draw: Draw, width: int, tokens: int = 4) -> dict[str, Tensor]:
    proj = {"weight": draw(tokens * width, EMBEDDED), "bias": draw(tokens * width)}
    return {**_named("proj", proj), **_named("norm", _norm(width, draw))}


def _full(draw: Draw, width: int) -> dict[str, Tensor]:
    return {
        **_named("proj.0", {"weight": draw(FEATURES, FEATURES), "bias": draw(FEATURES)}),
        **_named("proj.2", {"weight": draw(width, FEATURES), "bias": draw(width)}),
        **_named("proj.3", _norm(width, draw)),
    }


def _plus(draw: Draw, width: int) -> dict[str, Tensor]:
    inner = 64 * HEADS
    found = {
        "latents": draw(1, 5, WIDTH),
        **_named("proj_in", {"weight": draw(WIDTH, FEATURES), "bias": draw(WIDTH)}),
        **_named("proj_out", {"weight": draw(width, WIDTH), "bias": draw(width)}),
        **_named("norm_out", _norm(width, draw)),
    }
    for i in range(4):
        found |= {
            **_named(f"layers.{i}.0.norm1", _norm(WIDTH, draw)),
            **_named(f"layers.{i}.0.norm2", _norm(WIDTH, draw)),
            f"layers.{i}.0.to_q.weight": draw(inner, WIDTH),
            f"layers.{i}.0.to_kv.weight": draw(2 * inner, WIDTH),
            f"layers.{i}.0.to_out.weight": draw(WIDTH, inner),
            **_named(f"layers.{i}.1.0", _norm(WIDTH, draw)),
            f"layers.{i}.1.1.weight": draw(4 * WIDTH, WIDTH),
            f"layers.{i}.1.3.weight": draw(WIDTH, 4 * WIDTH),
        }
    return found


def _face_id(draw: Draw, width: int) -> dict[str, Tensor]:
    return {
        **_named("proj.0", {"weight": draw(FEATURES, FEATURES), "bias": draw(FEATURES)}),
        **_named("proj.2", {"weight": draw(4 * width, FEATURES), "bias": draw(4 * width)}),
        **_named("norm", _norm(width, draw)),
    }


_PROJECTIONS = {"plain": _plain, "full": _full, "plus": _plus, "faceid": _face_id}


def _of_unet(unet: Any, width: int, draw: Draw) -> dict[str, Tensor]:
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    found = {}
    for at, name in enumerate(names):
        inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for what in "kv":
            found[f"ip_adapter.{2 * at + 1}.to_{what}_ip.weight"] = draw(inner, width)
    return found


def _of_blocks(transformer: Any, width: int, draw: Draw) -> dict[str, Tensor]:
    name = "double_blocks.{}.processor.ip_adapter_double_stream_{}_proj.{}"
    found = {}
    for at in range(transformer.config.num_layers):
        for what in "kv":
            found[name.format(at, what, "weight")] = draw(transformer.inner_dim, width)
            found[name.format(at, what, "bias")] = draw(transformer.inner_dim)
    return found
