"""GGUF files keep their blocks, and draw what the blocks' numbers draw."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from denoisers import load_denoiser, tensors
from engines import start_engine, submit_to
from full_checkpoints import unet
from loras import diffusers_keys, random_lora
from loras import write as write_lora
from safetensors.torch import save_file
from single_files import flux, gguf_writer, requantised, weights, write_gguf
from tiny_checkpoints import stock_pipeline
from torch import Tensor, nn

from multimodal_gen.runtime.layers.quantized.storage import KeptWeight

Checkpoints = Callable[..., Path]
TYPES = ("Q4_0", "Q8_0", "Q5_1", "Q4_1", "Q5_0", "F16")


def mixed(file: Path, exact: Path, whole: Mapping[str, Tensor]) -> None:
    """Write matrices in turn in all types, and the numbers that these stand for."""
    numbers, kinds = {}, cycle(TYPES)
    with gguf_writer(file) as writer:
        for name, tensor in whole.items():
            kind = next(kinds) if tensor.dim() == 2 and tensor.shape[1] % 32 == 0 else "F32"
            own = gguf.GGMLQuantizationType[kind]
            blocks = gguf.quants.quantize(tensor.contiguous().numpy(), own)
            writer.add_tensor(name, blocks, raw_dtype=own)
            numbers[name] = torch.from_numpy(gguf.quants.dequantize(blocks, own).copy())
    save_file(numbers, exact)


def forms(module: nn.Module) -> list[tuple[str, ...]]:
    return [part.forms for part in module.modules() if isinstance(part, KeptWeight)]


def check_same(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = tensors(one), tensors(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_parts_of_one_product_keep_the_types_that_they_have(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("flux-dev")
    file, exact = tmp_path / "x.gguf", tmp_path / "exact.safetensors"
    mixed(file, exact, weights(folder))
    denoiser = load_denoiser(folder, file)
    assert any(len(set(each)) > 2 for each in forms(denoiser))
    check_same(denoiser, load_denoiser(folder, exact))


@pytest.mark.parametrize(
    ("name", "component", "num_gpus"), [("flux-dev", "transformer", 2), ("sd15", "unet", 1)]
)
def test_they_draw_with_loras_and_on_ranks_that_share_a_sequence(
    name: str, component: str, num_gpus: int, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    file = tmp_path / "x.gguf"
    exact = Path(shutil.copytree(folder, tmp_path / "exact"))
    (own,) = (exact / component).glob("*.safetensors")
    mixed(file, own, weights(folder, component))
    stock = getattr(stock_pipeline(exact), component)
    keys = diffusers_keys(component, random_lora(stock, "attn ff"))
    write_lora(tmp_path / "a.safetensors", keys)
    call = {"width": 48, "height": 64, "num_inference_steps": 2, "lora": "a:0.7"}
    kept = {"model_path": str(file), "base_model_path": str(folder), "num_gpus": num_gpus}
    found = []
    for which in (kept, {"model_path": str(exact)}):
        with start_engine(**which, lora_dir=str(tmp_path)) as engine:
            found.append(submit_to(engine, **call).result(300).pixels.astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


def test_no_more_is_kept_than_the_file_has(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints("flux-schnell", heads=16)
    file = write_gguf(tmp_path / "x.gguf", flux(folder), "Q4_0")
    denoiser = load_denoiser(folder, file)
    held = {each.data_ptr(): each.nbytes for each in (*denoiser.parameters(), *denoiser.buffers())}
    assert sum(held.values()) <= 1.05 * file.stat().st_size


def test_a_unet_that_comfyui_flattened_is_the_folders(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    """Its converter writes all tensors of 256 n numbers in rows of 256, where theirs don't fit."""
    folder = checkpoints("sd15")
    whole, flat, kind = unet(folder), 0, gguf.GGMLQuantizationType.Q8_0
    left = {}
    with gguf_writer(tmp_path / "x.gguf", "sd1") as writer:
        for name, tensor in whole.items():
            left[name], shape = tensor, tensor.shape
            if tensor.dim() < 2 or tensor.numel() % 256:
                writer.add_tensor(name, tensor.contiguous().numpy())
                continue
            if shape[-1] % 256:
                writer.add_array(f"comfy.gguf.orig_shape.{name}", [*shape])
                tensor = tensor.reshape(-1, 256)
                flat += 1
            left[name] = requantised(tensor.contiguous(), "Q8_0").reshape(shape)
            blocks = gguf.quants.quantize(tensor.contiguous().numpy(), kind)
            writer.add_tensor(name, blocks, raw_dtype=kind)
    assert flat > 10
    save_file({name: each.contiguous() for name, each in left.items()}, tmp_path / "x.sft")
    denoiser = load_denoiser(folder, tmp_path / "x.gguf")
    assert ("Q8_0",) in forms(denoiser)
    check_same(denoiser, load_denoiser(folder, tmp_path / "x.sft"))
