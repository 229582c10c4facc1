"""What is told of memory beforehand is what a loaded checkpoint takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from multimodal_gen.checkpoints.identify import identify
from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.entrypoints.cli.checkpoint.kept_size import KeptWeights, used
from multimodal_gen.entrypoints.cli.checkpoint.published_memory import Bits, weight_bytes
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.loader.tensors.when_loaded import WhenLoaded
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.residency.residency import memory_of


@pytest.mark.parametrize(
    "name", ["flux-dev", "flux2-klein", "qwenimage", "sd3", "sdxl", "sana", "wan", "zimage"]
)
def test_sizes_and_blocks_are_those_of_the_loaded_modules(
    name: str, checkpoints: Callable[..., Path]
) -> None:
    folder = checkpoints(name, dtype=torch.bfloat16)
    pipeline = load_pipeline(folder, device=torch.device("cpu"), dtype=torch.float32, mesh=Mesh())
    compared = 0
    for component in identify(folder).components:
        module = pipeline.components.get(component.name)
        if not isinstance(module, nn.Module):
            continue
        spec = pipeline.family.components[component.name]
        told = KeptWeights(
            used(component.tensors, spec),
            4,
            is_cpu=True,
            is_native=spec.kind == "native",
            resident=spec.resident,
        )
        found = memory_of(component.name, module)
        alignment = 512 * len([*module.parameters()])  # of each tensor on a device
        assert sum(told.size) == pytest.approx(found.size, abs=alignment + found.size // 50)
        if component.name != "vae":  # whose smallest blocks are near the limit
            assert len(told.blocks) == len(found.blocks)
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize(("form", "bits"), [(None, 16), ("int8", 8), ("fp8", 8), ("nf4", 4)])
def test_what_is_told_of_published_weights_is_what_they_take(
    form: Quantization | None, bits: Bits, checkpoints: Callable[..., Path]
) -> None:
    folder = checkpoints("flux-dev", heads=16)
    plain, loaded = (
        load_pipeline(
            folder,
            device=torch.device("cpu"),
            dtype=torch.bfloat16,
            mesh=Mesh(),
            quantization=each,
        ).denoiser_module
        for each in (None, form)
    )
    layers = WhenLoaded("fp8", quantizes_inputs=True).layers(plain)
    quantized = sum(plain.get_submodule(name).weight.numel() for name in layers)
    told = weight_bytes(sum(each.numel() for each in plain.parameters()), quantized, bits)
    assert memory_of("transformer", loaded).size == pytest.approx(told, rel=0.03)
