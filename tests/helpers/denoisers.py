"""A checkpoint's denoiser alone, from its folder or from a single file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from multimodal_gen.configs.families import family_named
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.loader.checkpoint import Checkpoint


def load_denoiser(
    folder: Path,
    file: Path | None = None,
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
    files: Mapping[str, Path] | None = None,
) -> torch.nn.Module:
    checkpoint = Checkpoint.open(folder, file, files)
    family = family_named(checkpoint.pipeline_class)
    module = importlib.import_module(f"multimodal_gen.runtime.pipelines.{family.module}")
    kind = module.PIPELINE.variant(checkpoint)
    context = RankContext(torch.device("cpu"), dtype, Mesh(), "auto")
    denoiser = kind.load_component(checkpoint, name or kind.denoiser_name, context)
    assert isinstance(denoiser, torch.nn.Module)
    return denoiser


def differences(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    """Names of parameters and buffers that differ in anything but the form they are kept in."""
    mine, theirs = tensors(one), tensors(other)
    return [
        name
        for name in mine.keys() | theirs.keys()
        if name not in mine
        or name not in theirs
        or mine[name].dtype != theirs[name].dtype
        or not torch.equal(mine[name], theirs[name])
    ]


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, with the numbers of weights that keep a form of their own."""
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, kept in module.named_modules():
        if isinstance(kept, KeptWeight):
            found = {key: each for key, each in found.items() if not key.startswith(f"{name}.")}
            whole = torch.cat([each.dequantized(kept.dtype) for each in kept.storages])
            found[f"{name.removesuffix('kept')}weight"] = whole
    return found
